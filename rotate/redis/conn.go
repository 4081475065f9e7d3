package redis

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// conn speaks RESP2, one command at a time.
type conn struct {
	net.Conn
	r    *bufio.Reader
	stop func() bool
}

// value is a reply: text of a string or number; of arrays, whether there is one.
type value struct {
	text []byte
	null bool
}

// serverError is an error that the server answered, without its words but the first:
// the rest may repeat an argument.
type serverError struct {
	code string
	text string // for this package to look into
}

func (e *serverError) Error() string { return "the server answered " + e.code }

// says whether err is the server's, and begins with code.
func says(err error, code string) bool {
	var s *serverError
	return errors.As(err, &s) && s.code == code
}

const maxReply = 64 << 20

func dial(ctx context.Context, host, port string, config *tls.Config) (*conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	if config != nil {
		tc := tls.Client(nc, config)
		if err := tc.HandshakeContext(ctx); err != nil {
			nc.Close()
			return nil, fmt.Errorf("TLS to the server failed: is its certificate trusted (ca=FILE), and does it speak TLS (tls=no)? %w", plain(err))
		}
		nc = tc
	}
	c := &conn{Conn: nc, r: bufio.NewReader(nc)}
	c.stop = context.AfterFunc(ctx, func() { nc.Close() })
	return c, nil
}

// plain keeps what kind of error it was.
func plain(err error) error {
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) {
		return errors.New("the certificate could not be verified")
	}
	return errors.New("the handshake broke off")
}

func (c *conn) close() {
	c.stop()
	c.Conn.Close()
}

// do sends one command and reads its reply.
func (c *conn) do(args ...string) (value, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(c, b.String()); err != nil {
		return value{}, errors.New("the connection to the server broke")
	}
	return c.read(0)
}

func (c *conn) read(depth int) (value, error) {
	line, err := c.r.ReadString('\n')
	if err != nil || len(line) < 3 || depth > 8 {
		return value{}, errors.New("the connection to the server broke")
	}
	text := line[1 : len(line)-2]
	switch line[0] {
	case '+', ':':
		return value{text: []byte(text)}, nil
	case '-':
		code, _, _ := strings.Cut(text, " ")
		return value{}, &serverError{code: code, text: text}
	case '$':
		n, err := strconv.Atoi(text)
		if err != nil || n > maxReply {
			return value{}, errors.New("the server does not speak Redis's protocol")
		}
		if n < 0 {
			return value{null: true}, nil
		}
		b := make([]byte, n+2)
		if _, err := io.ReadFull(c.r, b); err != nil {
			return value{}, errors.New("the connection to the server broke")
		}
		return value{text: b[:n]}, nil
	case '*':
		n, err := strconv.Atoi(text)
		if err != nil || n > 1<<20 {
			return value{}, errors.New("the server does not speak Redis's protocol")
		}
		var first error // what one command of a transaction answered
		for range n {
			_, err := c.read(depth + 1)
			if err != nil && !isServer(err) {
				return value{}, err
			}
			if first == nil {
				first = err
			}
		}
		return value{null: n < 0}, first
	}
	return value{}, errors.New("the server does not speak Redis's protocol")
}

func isServer(err error) bool {
	var s *serverError
	return errors.As(err, &s)
}
