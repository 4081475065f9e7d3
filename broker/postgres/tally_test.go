package postgres

import (
	"bytes"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// What statements did is counted, wherever the server's bytes are cut, and the
// client gets them as they are.
func TestTally(t *testing.T) {
	var in []byte
	for _, m := range []pgproto3.BackendMessage{
		&pgproto3.DataRow{Values: [][]byte{bytes.Repeat([]byte("C"), 3000)}},
		&pgproto3.CommandComplete{CommandTag: []byte("SELECT 340")}, &pgproto3.CommandComplete{CommandTag: []byte("INSERT 0 5")},
		&pgproto3.CommandComplete{CommandTag: []byte("SELECT 2")}, &pgproto3.CommandComplete{CommandTag: []byte("CREATE TABLE")},
		&pgproto3.ErrorResponse{Severity: "ERROR", Message: "no such table"}, &pgproto3.CommandComplete{CommandTag: bytes.Repeat([]byte("x"), 500)},
		&pgproto3.ReadyForQuery{TxStatus: 'I'},
	} {
		var err error
		if in, err = m.Encode(in); err != nil {
			t.Fatal(err)
		}
	}
	const want = "1 INSERT (5 rows), 2 SELECT (342 rows), 1 other, 1 errors"
	for size := 1; size < 200; size += 7 {
		for _, hide := range []rename{{}, {from: "table", to: "chair"}} {
			var out bytes.Buffer
			var did tally
			if _, err := back(&out, &cutReader{in, size}, hide, &did, nil); err.Error() != "EOF" {
				t.Fatal(err)
			}
			if hide.idle() && !bytes.Equal(out.Bytes(), in) {
				t.Fatalf("size %d: bytes changed", size)
			}
			if did.String() != want {
				t.Fatalf("size %d: %s", size, did.String())
			}
		}
	}
	if (&tally{}).String() != "no statement" {
		t.Error((&tally{}).String())
	}
}

// cutReader reads n bytes at a time.
type cutReader struct {
	b []byte
	n int
}

func (r *cutReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.n)], r.b)
	r.b = r.b[n:]
	return n, nil
}
