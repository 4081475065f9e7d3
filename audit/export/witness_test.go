package export

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"guard/audit"
)

// witnessServer is a witness as c2sp.org/tlog-witness has it, for one log.
type witnessServer struct {
	t    *testing.T
	log  note.Verifier
	key  ed25519.PrivateKey
	size int64
	root tlog.Hash
}

const witnessName = "witness.example/w"

func (w *witnessServer) keyID() []byte {
	pub := append([]byte{cosignatureV1}, w.key.Public().(ed25519.PublicKey)...)
	sum := sha256.Sum256(append([]byte(witnessName+"\n"), pub...))
	return sum[:4]
}

func (w *witnessServer) vkey() string {
	pub := append([]byte{cosignatureV1}, w.key.Public().(ed25519.PublicKey)...)
	return fmt.Sprintf("%s+%x+%s", witnessName, w.keyID(), base64.StdEncoding.EncodeToString(pub))
}

func (w *witnessServer) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	head, msg, ok := bytes.Cut(b, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	var old int64
	if _, err := fmt.Sscanf(lines[0], "old %d", &old); err != nil || !ok || r.URL.Path != "/w/add-checkpoint" {
		http.Error(rw, "malformed", 400)
		return
	}
	n, err := note.Open(msg, note.VerifierList(w.log))
	if err != nil {
		http.Error(rw, "unknown log", 403)
		return
	}
	text := strings.Split(n.Text, "\n")
	var size int64
	fmt.Sscan(text[1], &size)
	root, err := tlog.ParseHash(text[2])
	if err != nil {
		http.Error(rw, "malformed", 400)
		return
	}
	if old != w.size || old == size && root != w.root {
		rw.Header().Set("Content-Type", "text/x.tlog.size")
		rw.WriteHeader(409)
		fmt.Fprintf(rw, "%d\n", w.size)
		return
	}
	var p tlog.TreeProof
	for _, l := range lines[1:] {
		h, err := tlog.ParseHash(l)
		if err != nil {
			http.Error(rw, "malformed", 400)
			return
		}
		p = append(p, h)
	}
	if old > 0 && old != size && tlog.CheckTree(p, size, root, old, w.root) != nil {
		http.Error(rw, "not consistent", 422)
		return
	}
	w.size, w.root = size, root
	const at = 1767225600
	sig := ed25519.Sign(w.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, n.Text))
	fmt.Fprintf(rw, "— %s %s\n", witnessName, base64.StdEncoding.EncodeToString(append(binary.BigEndian.AppendUint64(w.keyID(), at), sig...)))
}

func TestWitness(t *testing.T) {
	dir, pub, l := newLog(t, 30)
	v, err := note.NewVerifier(pub)
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &witnessServer{t: t, log: v, key: key}
	srv := httptest.NewServer(w)
	defer srv.Close()
	keep := filepath.Join(t.TempDir(), "cosigned")
	target := "witness=" + srv.URL + "/w," + w.vkey()
	ship := func(dir string) error {
		s, err := Dial(target, source, Options{Dir: dir, Keep: keep})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		return Ship(t.Context(), dir, 1, s, true, func(uint64, []byte) error { return nil }, nil)
	}
	if err := ship(dir); err != nil || w.size != 30 {
		t.Fatal(w.size, err)
	}
	for i := range 9 {
		if _, err := l.Append(audit.Record{Type: "secret.set", Session: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	// A sender that starts anew asks the witness how far it is.
	if err := ship(dir); err != nil || w.size != 39 {
		t.Fatal(w.size, err)
	}
	b, err := os.ReadFile(keep)
	if err != nil || !bytes.Contains(b, []byte("\n— "+witnessName+" ")) {
		t.Errorf("kept %q, %v", b, err)
	}
	// Another log under the same key, as when this one was put back and went on.
	other, _, _ := newLog(t, 50)
	if err := ship(other); !errors.Is(err, audit.ErrTampered) {
		t.Errorf("another log: %v", err)
	}
	if w.size != 39 {
		t.Errorf("the witness signed %d records of another log", w.size)
	}
	short, _, _ := newLog(t, 5)
	if err := ship(short); !errors.Is(err, audit.ErrTampered) {
		t.Errorf("a shorter log: %v", err)
	}
	// A witness that signs with another key than the one that was given.
	if _, w.key, err = ed25519.GenerateKey(nil); err != nil {
		t.Fatal(err)
	}
	if err := ship(dir); err == nil || !strings.Contains(err.Error(), "no valid signature") {
		t.Errorf("another witness: %v", err)
	}
	for _, bad := range []string{"witness=", "witness=http://x", "witness=http://x,abc", "witness=http://x," + pub} {
		if _, err := Dial(bad, source, Options{}); err == nil {
			t.Errorf("%q is a target", bad)
		}
	}
}
