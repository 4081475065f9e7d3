package pack

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"guard/internal/testutil"
)

// A pack is taken from a connection to its last byte, however its bytes come, and
// nothing that is behind it.
func TestCopyEndsWithThePack(t *testing.T) {
	p := &testutil.Packfile{}
	at := p.Add(3, nil, []byte("some base"), 9)
	d := delta(9, 4, [2]int{0, 4})
	p.Add(6, ofs(p.Len()-at), d, len(d))
	p.Add(7, testutil.ObjectName("blob", []byte("some base")), d, len(d))
	p.Blob(strings.Repeat("long ", 100000))
	all := p.Whole()
	for what, r := range map[string]io.Reader{
		"at once":      bytes.NewReader(append(bytes.Clone(all), "and more"...)),
		"byte by byte": iotest.OneByteReader(bytes.NewReader(all)),
		"with EOF":     iotest.DataErrReader(bytes.NewReader(all)),
	} {
		var got bytes.Buffer
		if err := Copy(&got, r, 20); err != nil || !bytes.Equal(got.Bytes(), all) {
			t.Errorf("%s: %d bytes of %d, %v", what, got.Len(), len(all), err)
		}
	}
	// A connection that stays open is not waited for.
	pr, pw := io.Pipe()
	go pw.Write(all)
	if err := Copy(io.Discard, pr, 20); err != nil {
		t.Error(err)
	}
	pr.Close()
	for n := range len(all) {
		if err := Copy(io.Discard, bytes.NewReader(all[:n]), 20); err == nil {
			t.Fatalf("the first %d bytes are taken for a pack", n)
		}
	}
	full := NewSpool(t.TempDir(), 0)
	full.n = MaxSpool - 5
	if err := Copy(full, bytes.NewReader(all), 20); err == nil {
		t.Error("what could not be kept counts as kept")
	}
}

func FuzzCopy(f *testing.F) {
	p := &testutil.Packfile{}
	p.Blob("some base")
	f.Add(p.Whole())
	f.Fuzz(func(t *testing.T, b []byte) {
		var got bytes.Buffer
		if err := Copy(&got, bytes.NewReader(b), 20); err == nil && !bytes.HasPrefix(b, got.Bytes()) {
			t.Error("other bytes than were sent")
		}
	})
}
