package aws

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"guard"
	"io"
	nethttp "net/http"
	"net/url"
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

// formOf reads the fields of a form in a body that was taken whole, whatever type it
// says it is of: a server may not look at that.
func formOf(r *nethttp.Request) (url.Values, error) {
	t, ok := r.Body.(*taken)
	if !ok || len(r.Header["X-Amz-Target"]) > 0 && !isForm(r) {
		return nil, nil
	}
	if t.size > maxForm {
		if isForm(r) {
			return nil, wrong("RequestEntityTooLarge", "the form is too large to be read")
		}
		return nil, nil
	}
	if isForm(r) && r.Header.Get("Content-Encoding") != "" {
		return nil, wrong("InvalidArgument", "the form is compressed, so that it cannot be read: set AWS_DISABLE_REQUEST_COMPRESSION=true")
	}
	b, err := io.ReadAll(t.reader())
	if err != nil {
		return nil, wrong("IncompleteBody", "the request's body ended early")
	}
	v, err := url.ParseQuery(string(b))
	if err != nil && isForm(r) {
		return nil, wrong("MalformedQueryString", "the form cannot be read")
	}
	return v, nil
}

func isForm(r *nethttp.Request) bool {
	return strings.HasPrefix(strings.ToLower(r.Header.Get("Content-Type")), "application/x-www-form-urlencoded")
}

// chunks makes r's body the data in its chunks, and returns what puts it into chunks
// again: called without a seed, it only says how long that is.
func (s *Signer) chunks(r *Request, sig *signature, kind streaming, agent *signer, c guard.Credential) (func(*nethttp.Request, string, *signer, *signature) error, error) {
	in := r.Request
	if kind.signed && kind.ecdsa != sig.ecdsa() {
		return nil, wrong("InvalidArgument", "the chunks are not signed as the head is")
	}
	want, err := decodedLength(in)
	if err != nil {
		return nil, err
	}
	names, err := trailerNames(in, kind)
	if err != nil {
		return nil, err
	}
	var verify *chain
	if kind.signed {
		verify = newChain(agent, sig, sig.value)
	}
	body, encoded := in.Body, in.ContentLength
	if body == nil {
		body = nethttp.NoBody
	}
	codings := in.Header["Content-Encoding"]
	found := &frames{}
	d := newDechunker(body, kind, verify, want, names, found)
	plain := &reasons{d, func(err error) error {
		if errors.Is(err, errFraming) || errors.Is(err, errChunk) || errors.Is(err, errLength) {
			return refusal(c, chunkFault(err))
		}
		return err
	}}
	if want == 0 { // an empty body is not read by anybody
		if _, err := io.Copy(io.Discard, plain); err != nil {
			var ref *Refused
			if errors.As(err, &ref) {
				return nil, wrong(ref.code, ref.Decision.Reason)
			}
			return nil, wrong("IncompleteBody", "the request's body ended early")
		}
		in.Body = nethttp.NoBody
	} else {
		in.Body = plain
	}
	in.ContentLength = want
	withoutChunked(in.Header)
	return func(out *nethttp.Request, seed string, by *signer, real *signature) error {
		if by != nil {
			var sign *chain
			if kind.signed {
				sign = newChain(by, real, seed)
			}
			out.Body = &rechunker{src: out.Body, kind: kind, chain: sign, found: found, want: want}
			return nil
		}
		if out.ContentLength != want {
			return refusal(c, wrong("InvalidArgument", "the body was changed on its way, which its length and sums would not bear"))
		}
		if out.Body == nil {
			out.Body = nethttp.NoBody
		}
		out.ContentLength = encoded
		if encoded < 0 {
			out.TransferEncoding = []string{"chunked"}
		}
		delete(out.Header, "Content-Encoding")
		if len(codings) > 0 {
			out.Header["Content-Encoding"] = codings
		}
		return nil
	}, nil
}

func chunkFault(err error) error {
	switch {
	case errors.Is(err, errChunk):
		return wrong("SignatureDoesNotMatch", err.Error())
	case errors.Is(err, errLength):
		return wrong("IncompleteBody", err.Error())
	}
	return wrong("InvalidChunkSizeError", err.Error())
}

// reasons turns errors of a body into refusals.
type reasons struct {
	io.ReadCloser
	say func(error) error
}

// Read reads.
func (r *reasons) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = r.say(err)
	}
	return n, err
}
