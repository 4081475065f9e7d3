package http

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	nethttp "net/http"

	"guard/broker"
)

// maxAsked is how much of a body is kept while a person decides about a request, in bytes.
const maxAsked = 8 << 20

// asking is what of out a person can be shown. The body is read only if somebody is asked, and
// has a length: from then on out has what was read, so that nothing else can be sent.
func asking(out *nethttp.Request) broker.Asking {
	a := broker.Asking{Context: out.Context(), Query: out.URL.RawQuery}
	if out.Body == nil || out.Body == nethttp.NoBody {
		return a
	}
	a.Body = func() (string, int64) {
		if out.ContentLength < 0 || out.ContentLength > maxAsked {
			return "", -1 // a stream may wait for the answer
		}
		src := out.Body
		b, err := io.ReadAll(io.LimitReader(src, maxAsked+1))
		var rest io.Reader = src
		if err != nil {
			rest = failing{err}
		}
		out.Body = &partly{Reader: io.MultiReader(bytes.NewReader(b), rest), Closer: src}
		if err != nil || len(b) > maxAsked {
			return "", -1
		}
		if len(b) == 0 {
			return "", 0
		}
		sum := sha256.Sum256(b)
		return hex.EncodeToString(sum[:]), int64(len(b))
	}
	return a
}

// partly is a body of which a part was read.
type partly struct {
	io.Reader
	io.Closer
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err == nil {
		return 0, errors.New("the body could not be read")
	}
	return 0, f.err
}
