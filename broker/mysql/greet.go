package mysql

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
)

// client is the agent's side of a connection.
type client struct {
	c         net.Conn
	r         *bufio.Reader
	seq       byte // of the last packet that came
	caps      uint32
	maxPacket uint32
	collation byte
	user, db  string
	nonce     []byte
	auth      []byte // what it proved, with whatever it took for a password
	plugin    string
}

// errCharset says that a client wants a charset that guard cannot read SQL in.
var errCharset = errors.New("the client's charset is not supported")

// cut are the collations, by number, of charsets in which a backslash may be the
// second half of a character: big5, sjis, gbk, cp932, gb18030, and those that MariaDB
// adds to them.
var cut = []byte{1, 13, 28, 84, 87, 88, 95, 96, 248, 249, 250}

// greet says to a client what the server said, with a nonce and the capabilities of
// guard's, and reads its answer. Nothing is read beyond a request for TLS, so that
// bytes sent in clear text in advance cannot pass for encrypted ones.
func (h *Handler) greet(ctx context.Context, c net.Conn, up *upstream) (*client, error) {
	cl := &client{c: c, plugin: pluginNative}
	if !up.mariadb() {
		cl.plugin = pluginCaching
	}
	cl.nonce = make([]byte, scrambleLen)
	rand.Read(cl.nonce)
	for i, b := range cl.nonce { // a NUL or $ would end it for some clients
		cl.nonce[i] = b%90 + 37
	}
	caps := uint32(up.caps)&capBoth | capNeeded | capPluginAuth | capAuthLenEnc | capConnectWithDB
	if h.GetCertificate != nil {
		caps |= capSSL
	}
	out := append([]byte{10}, up.version...)
	out = append(out, 0, byte(up.id), byte(up.id>>8), byte(up.id>>16), byte(up.id>>24))
	out = append(append(out, cl.nonce[:8]...), 0)
	out = append(out, byte(caps), byte(caps>>8), up.collation, byte(up.status), byte(up.status>>8), byte(caps>>16), byte(caps>>24), scrambleLen+1)
	out = append(out, make([]byte, 10)...)
	out = append(append(out, cl.nonce[8:]...), 0)
	out = append(append(out, cl.plugin...), 0)
	p, _ := appendPacket(nil, out, 0)
	if _, err := c.Write(p); err != nil {
		return nil, err
	}
	msg, seq, err := readPacket(c, nil, 64<<10)
	if err != nil {
		return nil, err
	}
	if len(msg) == 32 && caps&capSSL != 0 && (&reader{b: msg}).u32()&capSSL != 0 {
		t := tls.Server(c, &tls.Config{GetCertificate: h.GetCertificate, MinVersion: tls.VersionTLS12})
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		cl.c = t
		if msg, seq, err = readPacket(t, nil, 64<<10); err != nil {
			return nil, err
		}
	}
	cl.seq, cl.r = seq, bufio.NewReaderSize(cl.c, 16<<10)
	if err := cl.parse(msg, caps); err != nil {
		return cl, err
	}
	return cl, nil
}

// parse reads a HandshakeResponse41.
func (cl *client) parse(msg []byte, offered uint32) error {
	r := reader{b: msg}
	cl.caps = r.u32()
	if r.bad || cl.caps&capProtocol41 == 0 {
		return errFrame
	}
	asked := cl.caps
	cl.caps &= offered
	cl.maxPacket = r.u32()
	cl.collation = r.u8()
	r.take(23)
	cl.user = r.text()
	switch {
	case asked&capAuthLenEnc != 0:
		cl.auth = r.take(int(min(r.lenenc(), 1<<16)))
	case asked&capSecureConnection != 0:
		cl.auth = r.take(int(r.u8()))
	default:
		cl.auth = []byte(r.text())
	}
	if asked&capConnectWithDB != 0 {
		cl.db = r.text()
	}
	if asked&capPluginAuth != 0 && len(r.b) > 0 {
		cl.plugin = r.text()
	}
	if r.bad {
		return errFrame
	}
	if slices.Contains(cut, cl.collation) {
		return errCharset
	}
	return nil
}

// welcome tells the client that it is logged in.
func (cl *client) welcome(status uint16) error {
	var out []byte
	seq := cl.seq + 1
	if cl.plugin == pluginCaching && len(cl.auth) > 1 {
		out, seq = appendPacket(out, []byte{1, 3}, seq) // its password is known already
	}
	out, _ = appendPacket(out, okPacket(status), seq)
	_, err := cl.c.Write(out)
	return err
}

// fail sends an error as the next packet.
func (cl *client) fail(e *serverError) error {
	out, _ := appendPacket(nil, e.packet(), cl.seq+1)
	_, err := cl.c.Write(out)
	return err
}

// early sends an error in the place of a greeting.
func early(c net.Conn, e *serverError) {
	out, _ := appendPacket(nil, e.early(), 0)
	_, _ = c.Write(out)
}

// proves says whether the client gave placeholder for its password.
func (cl *client) proves(placeholder string) bool {
	if placeholder == "" || len(cl.auth) == 0 {
		return false
	}
	same := func(want []byte) bool { return subtle.ConstantTimeCompare(cl.auth, want) == 1 }
	p := []byte(placeholder)
	return same(scrambleNative(cl.nonce, p)) || same(scrambleSHA2(cl.nonce, p)) || strings.TrimSuffix(string(cl.auth), "\x00") == placeholder
}
