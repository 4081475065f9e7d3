package export

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"guard/audit"
)

// witness sends checkpoints to a witness (c2sp.org/tlog-witness), which signs each
// that follows from the one before: whoever trusts it need not ask what this machine
// showed to others. Records stay here. A witness knows a log by its origin and key:
// it has to be told the log's verifier key first.
type witness struct {
	url    string
	name   string // of the witness, and its key, where they are given
	key    ed25519.PublicKey
	hash   uint32
	dir    string
	keep   string // where the newest checkpoint is kept with the witness's signature
	client *http.Client
	old    uint64 // size that the witness has signed last
}

// newWitness reads URL[,VKEY]: the witness's submission prefix, and its verifier key
// (NAME+HASH+KEY of a cosignature/v1 key), with which its signatures are checked.
func newWitness(where string, o Options) (*witness, error) {
	prefix, vkey, _ := strings.Cut(where, ",")
	u, err := url.Parse(prefix)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || vkey == "" {
		return nil, errors.New("target witness: want witness=http(s)://HOST/PREFIX,VKEY, with the witness's verifier key")
	}
	t, err := tlsConfig(o)
	if err != nil {
		return nil, err
	}
	w := &witness{url: strings.TrimSuffix(prefix, "/") + "/add-checkpoint", dir: o.Dir, keep: o.Keep, client: &http.Client{
		Timeout: sendTimeout, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: t},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) == 3 {
		b, err := base64.StdEncoding.DecodeString(parts[2])
		h, herr := strconv.ParseUint(parts[1], 16, 32)
		if err == nil && herr == nil && len(b) == 1+ed25519.PublicKeySize && b[0] == cosignatureV1 {
			sum := sha256.Sum256(append([]byte(parts[0]+"\n"), b...))
			if w.name, w.key, w.hash = parts[0], b[1:], uint32(h); binary.BigEndian.Uint32(sum[:]) == w.hash {
				return w, nil
			}
		}
	}
	return nil, errors.New("target witness: the verifier key is not one of a witness (NAME+HASH+KEY, of type cosignature/v1)")
}

const cosignatureV1 = 4

func (w *witness) Close() error {
	w.client.CloseIdleConnections()
	return nil
}

// Send sends b's checkpoint, with a proof that it goes on from the last one that the
// witness signed.
func (w *witness) Send(ctx context.Context, b Batch) error {
	if b.Checkpoint == nil {
		return nil
	}
	for range 2 {
		again, err := w.add(ctx, b.Checkpoint)
		if err != nil || !again {
			return err
		}
	}
	return errors.New("the witness says a different size each time")
}

// add submits a checkpoint once. again: the witness has signed another size than
// was thought, which w.old now is.
func (w *witness) add(ctx context.Context, checkpoint []byte) (again bool, err error) {
	size, ok := audit.CheckpointSize(checkpoint)
	if !ok {
		return false, errors.New("not a checkpoint")
	}
	if w.old > size {
		return false, fmt.Errorf("the witness has signed %d records, and the log has %d: it was put back to an earlier state: %w", w.old, size, audit.ErrTampered)
	}
	proof, err := audit.Consistency(w.dir, w.old, size)
	if err != nil {
		return false, err
	}
	var body bytes.Buffer
	fmt.Fprintf(&body, "old %d\n", w.old)
	for _, h := range proof {
		body.WriteString(h + "\n")
	}
	body.WriteString("\n")
	body.Write(checkpoint)
	req, err := http.NewRequestWithContext(ctx, "POST", w.url, &body)
	if err != nil {
		return false, err
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return false, fmt.Errorf("send to the witness: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return false, fmt.Errorf("read the witness's answer: %w", err)
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusConflict:
		n, err := strconv.ParseUint(strings.TrimSpace(string(answer)), 10, 63)
		if err != nil || resp.Header.Get("Content-Type") != "text/x.tlog.size" {
			return false, errors.New("the witness refused the checkpoint, and did not say which it has")
		}
		if n == w.old {
			return false, fmt.Errorf("the witness has signed other records of this size: this log is not the one that it knows: %w", audit.ErrTampered)
		}
		w.old = n
		return true, nil
	case http.StatusUnprocessableEntity:
		return false, fmt.Errorf("the witness says that the log does not go on from what it signed before: %w", audit.ErrTampered)
	case http.StatusNotFound, http.StatusForbidden:
		return false, fmt.Errorf("the witness answered %s: it has to be told the log's verifier key (key.pub) first", resp.Status)
	default:
		return false, fmt.Errorf("the witness answered %s", resp.Status)
	}
	line, err := w.verify(checkpoint, answer)
	if err != nil {
		return false, err
	}
	w.old = size
	if w.keep == "" {
		return false, nil
	}
	tmp := w.keep + ".new"
	if err := os.WriteFile(tmp, append(bytes.Clone(checkpoint), line...), 0o600); err != nil {
		return false, err
	}
	return false, os.Rename(tmp, w.keep)
}

// verify finds the witness's signature of checkpoint in its answer.
func (w *witness) verify(checkpoint, answer []byte) (line []byte, err error) {
	text, _, _ := strings.Cut(string(checkpoint), "\n\n")
	for line := range bytes.Lines(answer) {
		rest, ok := strings.CutPrefix(strings.TrimSuffix(string(line), "\n"), "— ")
		name, sig, ok2 := strings.Cut(rest, " ")
		b, err := base64.StdEncoding.DecodeString(sig)
		if !ok || !ok2 || err != nil || name != w.name || len(b) != 4+8+ed25519.SignatureSize || binary.BigEndian.Uint32(b) != w.hash {
			continue
		}
		message := fmt.Sprintf("cosignature/v1\ntime %d\n%s\n", binary.BigEndian.Uint64(b[4:]), text)
		if ed25519.Verify(w.key, []byte(message), b[12:]) {
			return line, nil
		}
	}
	return nil, errors.New("the witness's answer holds no valid signature by the key that was given")
}
