package export

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"guard/audit"
)

const sendTimeout = 30 * time.Second

func tlsConfig(o Options) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(o.CA) == 0 {
		return c, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's roots: %w", err)
	}
	for _, f := range o.CA {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		if !pool.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("%s holds no certificate", f)
		}
	}
	c.RootCAs = pool
	return c, nil
}

// otlp sends logs, spans and metrics to an OpenTelemetry collector over HTTP.
type otlp struct {
	base    string
	source  Source
	headers map[string]string
	client  *http.Client
	counts  Counts
	counted uint64
}

func newOTLP(base string, s Source, o Options) (*otlp, error) {
	t, err := tlsConfig(o)
	if err != nil {
		return nil, err
	}
	return &otlp{base: base, source: s, headers: o.Headers, client: &http.Client{
		Timeout:       sendTimeout,
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: t, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func (x *otlp) Close() error {
	x.client.CloseIdleConnections()
	return nil
}

// Send sends the records as logs, each with its line as the attribute guard.line, and the
// checkpoint as a log of its own, whose body it is: the proof that goes with them.
func (x *otlp) Send(ctx context.Context, b Batch) error {
	logs := Logs(x.source, b.Records)
	recs := &logs.ResourceLogs[0].ScopeLogs[0].LogRecords
	for i := range *recs {
		(*recs)[i].Attributes = append((*recs)[i].Attributes, keyValue{"guard.line", valueOf(string(b.Lines[i]))})
	}
	if b.Checkpoint != nil {
		at := fmt.Sprint(time.Now().UnixNano())
		*recs = append(*recs, logRecord{TimeUnixNano: at, ObservedTimeUnixNano: at, SeverityNumber: 9, SeverityText: "INFO", EventName: "guard.checkpoint",
			Body: valueOf(string(b.Checkpoint)), Attributes: []keyValue{{"guard.type", valueOf("checkpoint")}}})
	}
	if err := x.post(ctx, "/v1/logs", logs, "rejectedLogRecords"); err != nil {
		return err
	}
	if traces, n := Traces(x.source, b.Records); n > 0 {
		if err := x.post(ctx, "/v1/traces", traces, "rejectedSpans"); err != nil {
			return err
		}
	}
	for _, r := range b.Records {
		if r.Seq > x.counted { // a batch may come again
			x.counts.Add(r)
			x.counted = r.Seq
		}
	}
	return x.post(ctx, "/v1/metrics", x.counts.Metrics(x.source, time.Now()), "rejectedDataPoints")
}

func (x *otlp) post(ctx context.Context, path string, v any, rejected string) error {
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	if err := errors.Join(json.NewEncoder(z).Encode(v), z.Close()); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", x.base+path, &body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Content-Encoding", "gzip")
	req.Header.Set("User-Agent", "guard/"+x.source.Version)
	for k, v := range x.headers {
		req.Header.Set(k, v)
	}
	resp, err := x.client.Do(req)
	if err != nil {
		return fmt.Errorf("send to the collector: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read the collector's answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the collector answered %s to %s", resp.Status, path)
	}
	// OTLP: a success may have left some out.
	var partial struct {
		PartialSuccess map[string]any `json:"partialSuccess"`
	}
	if len(b) > 0 && json.Unmarshal(b, &partial) == nil {
		if n := fmt.Sprint(partial.PartialSuccess[rejected]); n != "<nil>" && n != "0" {
			return fmt.Errorf("the collector refused %s of the batch sent to %s", n, path)
		}
	}
	return nil
}

// syslog sends RFC 5424 messages: over UDP and Unix datagrams one each, over TCP and
// TLS with their length before them (RFC 6587, 5425).
type syslog struct {
	network, addr string
	source        Source
	tls           *tls.Config
	conn          net.Conn
}

func newSyslog(u *url.URL, s Source, o Options) (*syslog, error) {
	x := &syslog{network: u.Scheme, addr: u.Host, source: s}
	port := map[string]string{"udp": "514", "tcp": "601", "tls": "6514"}[u.Scheme]
	switch {
	case u.Scheme == "unix":
		x.network, x.addr = "unixgram", u.Path
	case port == "" || u.Hostname() == "":
		return nil, errors.New("target syslog: want unix:///PATH, udp://HOST, tcp://HOST or tls://HOST")
	case u.Port() == "":
		x.addr = net.JoinHostPort(u.Hostname(), port)
	}
	if u.Scheme == "tls" {
		var err error
		if x.tls, err = tlsConfig(o); err != nil {
			return nil, err
		}
		x.network = "tcp"
		x.tls.ServerName = u.Hostname()
	}
	return x, nil
}

func (x *syslog) Send(ctx context.Context, b Batch) (err error) {
	if x.conn == nil {
		d := net.Dialer{Timeout: sendTimeout}
		if x.tls != nil {
			x.conn, err = (&tls.Dialer{NetDialer: &d, Config: x.tls}).DialContext(ctx, x.network, x.addr)
		} else {
			x.conn, err = d.DialContext(ctx, x.network, x.addr)
		}
		if err != nil {
			x.conn = nil
			return fmt.Errorf("connect to syslog: %w", err)
		}
	}
	defer func() {
		if err != nil {
			x.Close()
			err = fmt.Errorf("send to syslog: %w", err)
		}
	}()
	if err := x.conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	messages := make([]string, 0, len(b.Records)+1)
	for _, r := range b.Records {
		messages = append(messages, Syslog(x.source, r))
	}
	if b.Checkpoint != nil {
		// On one line, since a line feed ends a message for many receivers.
		messages = append(messages, fmt.Sprintf("<86>1 %s %s guard - checkpoint - %s",
			time.Now().UTC().Format("2006-01-02T15:04:05.000000Z07:00"), header(x.source.Host, 255), strings.ReplaceAll(string(b.Checkpoint), "\n", "|")))
	}
	for _, m := range messages {
		if x.network == "tcp" {
			m = fmt.Sprintf("%d %s", len(m), m)
		}
		if _, err := io.WriteString(x.conn, m); err != nil {
			return err
		}
	}
	return nil
}

func (x *syslog) Close() error {
	if x.conn == nil {
		return nil
	}
	err := x.conn.Close()
	x.conn = nil
	return err
}

const journalSocket = "/run/systemd/journal/socket"

// journald sends entries in the journal's native protocol, with every field of a
// record as GUARD_FIELD.
type journald struct {
	path   string
	source Source
	conn   net.Conn
}

func (x *journald) Send(ctx context.Context, b Batch) (err error) {
	if x.conn == nil {
		var d net.Dialer
		if x.conn, err = d.DialContext(ctx, "unixgram", x.path); err != nil {
			x.conn = nil
			return fmt.Errorf("connect to the journal: %w", err)
		}
	}
	for _, r := range b.Records {
		level := [...]int{informational: 6, low: 5, medium: 4, high: 3, critical: 2}[severityOf(r)]
		var m bytes.Buffer
		field := func(k, v string) {
			// A value with a line feed has its length before it.
			if !strings.Contains(v, "\n") {
				fmt.Fprintf(&m, "%s=%s\n", k, v)
				return
			}
			m.WriteString(k + "\n")
			m.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(v))))
			m.WriteString(v + "\n")
		}
		field("MESSAGE", title(r))
		field("PRIORITY", fmt.Sprint(level))
		field("SYSLOG_IDENTIFIER", "guard")
		for _, a := range attributes(r) {
			field("GUARD_"+strings.ToUpper(a.key), a.text())
		}
		if b.Checkpoint != nil && r.Seq == b.Records[len(b.Records)-1].Seq {
			field("GUARD_CHECKPOINT", string(b.Checkpoint))
		}
		if _, err := x.conn.Write(m.Bytes()); err != nil {
			x.Close()
			return fmt.Errorf("send to the journal: %w", err)
		}
	}
	return nil
}

func (x *journald) Close() error {
	if x.conn == nil {
		return nil
	}
	err := x.conn.Close()
	x.conn = nil
	return err
}

// copyFile appends lines to a file, on another disk or machine, and keeps the newest
// checkpoint beside it, with ".checkpoint" after its name.
type copyFile struct {
	path string
	next uint64 // the record that belongs at byte at; 0: not known
	at   int64
}

func (x *copyFile) Send(_ context.Context, b Batch) (err error) {
	f, err := os.OpenFile(x.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	at := x.at
	if fi, err := f.Stat(); err != nil || x.next != b.Records[0].Seq || fi.Size() != at {
		if at, err = x.end(f, b.Records[0].Seq); err != nil {
			return err
		}
	}
	x.next = 0
	lines := append(bytes.Join(b.Lines, []byte("\n")), '\n')
	if _, err := f.WriteAt(lines, at); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	x.next, x.at = b.Records[len(b.Records)-1].Seq+1, at+int64(len(lines))
	if b.Checkpoint == nil {
		return nil
	}
	tmp := x.path + ".checkpoint.new"
	if err := os.WriteFile(tmp, b.Checkpoint, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, x.path+".checkpoint")
}

// end is where record seq belongs in f: a batch that was sent in part begins again
// where it began.
func (x *copyFile) end(f *os.File, seq uint64) (int64, error) {
	const window = 64 << 20 // a batch is shorter
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	from := max(0, fi.Size()-window)
	b := make([]byte, fi.Size()-from)
	if _, err := f.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if from > 0 {
		i := bytes.IndexByte(b, '\n') + 1
		from, b = from+int64(i), b[i:]
	}
	last := uint64(0)
	for {
		line, rest, ok := bytes.Cut(b, []byte("\n"))
		if !ok {
			break // torn, or the end
		}
		var r audit.Record
		if json.Unmarshal(line, &r) != nil {
			return 0, fmt.Errorf("%s holds a line that is no record", filepath.Base(x.path))
		}
		if r.Seq >= seq {
			break
		}
		last = r.Seq
		from += int64(len(line)) + 1
		b = rest
	}
	if last+1 != seq && !(last == 0 && fi.Size() == 0) {
		return 0, fmt.Errorf("%s ends with record %d, and record %d is next: it is not the copy of this log, or something was taken out of it", filepath.Base(x.path), last, seq)
	}
	return from, f.Truncate(from)
}

func (x *copyFile) Close() error { return nil }
