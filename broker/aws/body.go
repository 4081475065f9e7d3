package aws

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	nethttp "net/http"
	"os"
	"slices"
	"strconv"
	"strings"
)

const (
	maxForm = 1 << 20
	inMem   = 1 << 20   // of a body that is taken whole; the rest is in an unlinked file
	maxBody = 128 << 20 // more is refused: Lambda takes 70 MiB
)

// taken is a body that was read whole.
type taken struct {
	io.Reader
	mem  []byte
	file *os.File
	size int64
}

func (t *taken) reader() io.Reader {
	if t.file == nil {
		return bytes.NewReader(t.mem)
	}
	return io.MultiReader(bytes.NewReader(t.mem), io.NewSectionReader(t.file, 0, t.size-int64(len(t.mem))))
}

// Close does nothing: the body may be read again, until its request ends.
func (t *taken) Close() error { return nil }

// takeBody reads r's body, puts it back, and returns its SHA-256 sum in hex.
func takeBody(r *nethttp.Request) (string, error) {
	if r.Body == nil || r.Body == nethttp.NoBody || r.ContentLength == 0 {
		return emptySum, nil
	}
	sum := sha256.New()
	src := io.TeeReader(io.LimitReader(r.Body, maxBody+1), sum)
	t := &taken{}
	var err error
	if t.mem, err = io.ReadAll(io.LimitReader(src, inMem)); err != nil {
		return "", wrong("IncompleteBody", "the request's body ended early")
	}
	t.size = int64(len(t.mem))
	if t.size == inMem {
		if t.file, err = os.CreateTemp("", "guard-body-*"); err != nil {
			return "", wrong("InternalError", "there is no room for the request's body")
		}
		context.AfterFunc(r.Context(), func() { t.file.Close() })
		if err := os.Remove(t.file.Name()); err != nil {
			return "", wrong("InternalError", "there is no room for the request's body")
		}
		n, err := io.Copy(t.file, src)
		if err != nil {
			return "", wrong("IncompleteBody", "the request's body ended early, or there is no room for it")
		}
		t.size += n
	}
	if t.size > maxBody {
		return "", wrong("RequestEntityTooLarge", "the body is too large to be verified before it is sent")
	}
	t.Reader = t.reader()
	r.Body = t
	r.ContentLength = t.size
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func decodedLength(r *nethttp.Request) (int64, error) {
	vs := r.Header["X-Amz-Decoded-Content-Length"]
	if len(vs) != 1 {
		return 0, wrong("MissingContentLength", "a body in chunks needs one x-amz-decoded-content-length")
	}
	n, err := strconv.ParseUint(vs[0], 10, 62)
	if err != nil || strings.HasPrefix(vs[0], "+") {
		return 0, wrong("InvalidArgument", "x-amz-decoded-content-length is not a number")
	}
	return int64(n), nil
}

// trailerNames are those that x-amz-trailer announces.
func trailerNames(r *nethttp.Request, kind streaming) ([]string, error) {
	var names []string
	for _, v := range r.Header["X-Amz-Trailer"] {
		for n := range strings.SplitSeq(v, ",") {
			n = strings.ToLower(strings.TrimSpace(n))
			if !strings.HasPrefix(n, "x-amz-") || !plain(n) || slices.Contains(names, n) {
				return nil, wrong("InvalidArgument", "x-amz-trailer names what is no trailer")
			}
			names = append(names, n)
		}
	}
	if len(names) > 0 && !kind.trailer || len(names) == 0 && kind.trailer && !kind.signed {
		return nil, wrong("InvalidArgument", "x-amz-trailer and x-amz-content-sha256 do not agree")
	}
	return names, nil
}

// withoutChunked takes aws-chunked out of Content-Encoding: the data is not in chunks
// any more.
func withoutChunked(h nethttp.Header) {
	vs := h["Content-Encoding"]
	if len(vs) == 0 {
		return
	}
	var keep []string
	for _, v := range vs {
		for c := range strings.SplitSeq(v, ",") {
			if c = strings.TrimSpace(c); c != "" && !strings.EqualFold(c, "aws-chunked") {
				keep = append(keep, c)
			}
		}
	}
	delete(h, "Content-Encoding")
	if len(keep) > 0 {
		h["Content-Encoding"] = []string{strings.Join(keep, ",")}
	}
}
