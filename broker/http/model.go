package http

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"guard/broker"
	"io"
	"mime"
	nethttp "net/http"
	"strings"

	"guard"
)

// maxModelBody is how much of a request to a model's API is read to be looked
// through as JSON; of more, each byte is looked at as it is (Anthropic takes 32 MB).
const maxModelBody = 32 << 20

// dialect is whose API a model's host speaks: its errors look different.
type dialect uint8

const (
	openAI    dialect = iota // and what is compatible with it
	anthropic                // /v1/messages
	google                   // :generateContent
)

// dialectOf tells it by the host where that is known, else by the request.
func dialectOf(host string, r *nethttp.Request) dialect {
	switch host {
	case "api.anthropic.com":
		return anthropic
	case "generativelanguage.googleapis.com":
		return google
	case "api.openai.com":
		return openAI
	}
	path := r.URL.Path
	switch {
	case r.Header.Get("Anthropic-Version") != "", strings.HasSuffix(path, "/v1/messages"), strings.Contains(path, "/v1/messages/"):
		return anthropic
	case r.Header.Get("X-Goog-Api-Key") != "", strings.Contains(path, ":generateContent"), strings.Contains(path, ":streamGenerateContent"),
		strings.Contains(path, ":countTokens"), strings.Contains(path, ":embedContent"), strings.Contains(path, ":batchEmbedContents"):
		return google
	}
	return openAI
}

// modelDenial is a refusal as a model's API words its errors, so that its clients
// show the reason, and with the keys of denial but "error" beside.
type modelDenial struct {
	Type  string `json:"type,omitempty"`
	Error any    `json:"error"`
	broker.Refusal
}

// modelError is d in the words of r's API. Sources: the error pages of each API's
// reference.
func (x *exchange) modelError(d denial, status int) any {
	out := modelDenial{Refusal: d.Refusal}
	message := "guard: " + d.Reason
	if len(d.NextSteps) > 0 {
		message += ". Next: " + strings.Join(d.NextSteps, "; ")
	}
	switch dialectOf(x.meta.host, x.in) {
	case anthropic:
		kind := "permission_error"
		switch {
		case status >= 500:
			kind = "api_error"
		case status == nethttp.StatusRequestEntityTooLarge:
			kind = "request_too_large"
		case status != nethttp.StatusForbidden:
			kind = "invalid_request_error"
		}
		out.Type = "error"
		out.Error = struct {
			Type    string `json:"type"`
			Message string `json:"message"`
		}{kind, message}
	case google:
		kind := "PERMISSION_DENIED"
		switch {
		case status >= 500:
			kind = "UNAVAILABLE"
		case status != nethttp.StatusForbidden:
			kind = "INVALID_ARGUMENT"
		}
		out.Error = struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
			Status  string `json:"status"`
		}{status, message, kind}
	default:
		out.Error = struct {
			Message string  `json:"message"`
			Type    string  `json:"type"`
			Param   *string `json:"param"`
			Code    string  `json:"code"`
		}{message, d.Error, nil, d.Error}
	}
	return out
}

// denialBody is the body of a refusal.
func (x *exchange) denialBody(d denial, status int) []byte {
	var v any = d
	if x.model {
		v = x.modelError(d, status)
	}
	b, err := json.Marshal(v)
	if err != nil {
		b = []byte("{}")
	}
	return append(b, '\n')
}

// isJSON says whether a body is JSON by its type. Clients leave that out, so one
// without a type, or plain text, is tried.
func isJSON(h nethttp.Header) bool {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	switch {
	case err != nil, kind == "application/json", strings.HasSuffix(kind, "+json"), kind == "text/plain", kind == "application/octet-stream",
		kind == "application/x-ndjson", kind == "application/jsonl", kind == "application/x-jsonl", kind == "application/json-seq", kind == "text/json":
		return true
	}
	return false
}

// frameFilter is the stream of what is said in a WebSocket's data frames: to a
// model's API (real-time ones), JSON messages stay JSON.
func (x *exchange) frameFilter() guard.Filter {
	if x.model {
		return keepJSON(x.filter())
	}
	return x.filter()
}

// inspectModel judges a request to a model's API: a JSON body as the strings that
// it is made of, a multipart one (a file's upload) as it streams. handled is false
// for what is not its own to judge.
func (x *exchange) inspectModel(codings []string) (handled bool, err error) {
	r := x.in
	if kind, p, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && strings.HasPrefix(kind, "multipart/") && p["boundary"] != "" && len(codings) == 0 {
		x.body = x.stream(r.Body, mended(x.filter(), (&partMasks{boundary: []byte("--" + p["boundary"])}).step))
		return true, nil
	}
	if !isJSON(r.Header) {
		return false, nil
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxModelBody+1))
	if err != nil {
		return true, spoolError(err)
	}
	rest := struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(b), r.Body), r.Body}
	if len(b) > maxModelBody {
		if len(codings) > 0 {
			r.Body = rest
			return false, nil // unpacked in a file, and judged as it is there
		}
		x.body = x.stream(rest, keepJSON(x.filter()))
		return true, nil
	}
	if len(codings) == 0 {
		out, d := x.judge(b)
		if d.Action.Stops() {
			return true, x.stopped(d)
		}
		x.inspected(bytes.NewReader(out), int64(len(out)))
		return true, nil
	}
	dec, err := decoder(bytes.NewReader(b), codings)
	if err != nil {
		return true, undecodable()
	}
	plain, err := io.ReadAll(io.LimitReader(dec, maxModelBody+1))
	if err != nil {
		return true, undecodable()
	}
	if len(plain) > maxModelBody {
		r.Body = rest
		return false, nil
	}
	// As it is, too: a container has room for bytes that unpacking skips.
	bare, d := whole(x.filter(), b)
	if d.Action.Stops() {
		return true, x.stopped(d)
	}
	out, d := x.judge(plain)
	switch {
	case d.Action.Stops():
		return true, x.stopped(d)
	case !bytes.Equal(out, plain):
		x.coding = true
		b = out
	case !bytes.Equal(bare, b):
		return true, x.stopped(guard.Decision{Action: guard.Block})
	}
	x.inspected(bytes.NewReader(b), int64(len(b)))
	return true, nil
}

// judge shows all of a body to the leak line. One that is JSON and goes to a
// model's API is also shown as its strings read: decoded, those that follow each
// other joined, and base64 in it decoded. What is masked stays JSON.
func (x *exchange) judge(b []byte) ([]byte, guard.Decision) {
	out, d := whole(x.filter(), b)
	if d.Action.Stops() || !x.model {
		return out, d
	}
	doc, ok := parseJSON(b)
	if !ok {
		return out, d
	}
	mend(doc, b, out)
	worse := func(o guard.Decision) bool {
		if o.Action < d.Action {
			d = o
		}
		return o.Action.Stops()
	}
	for _, group := range doc.groups(out) {
		if worse(x.judgeTexts(out, group)) {
			return nil, d
		}
	}
	for _, s := range doc.texts {
		if s.to-s.from >= minData && worse(x.judgeData(out, s)) {
			return nil, d
		}
	}
	return out, d
}

// groups are the strings that a reader may see as one: all of them one after the
// other, and those that are at one place of each element of an array.
func (d *jsonDoc) groups(b []byte) [][]jsonText {
	all := make([]jsonText, 0, len(d.texts))
	same := map[string][]jsonText{}
	for _, s := range d.texts {
		if s.name || s.from == s.to || isLabel(s.key) || s.to-s.from >= minData && isData(s.key, b[s.from:s.to]) {
			continue
		}
		all = append(all, s)
		same[s.path] = append(same[s.path], s)
	}
	out := [][]jsonText{all}
	for _, s := range d.texts { // in order, so that records are
		if g := same[s.path]; len(g) > 1 && len(g) < len(all) {
			out = append(out, g)
		}
		delete(same, s.path)
	}
	return out
}

// isLabel says of a member's name that its value says what something is, and is no
// part of what is said.
func isLabel(key string) bool {
	switch key {
	case "type", "role", "id", "name", "tool_use_id", "tool_call_id", "call_id", "media_type", "mime_type", "mimeType", "status", "model", "detail", "filename", "title":
		return true
	}
	return false
}

// judgeTexts shows the texts to the leak line as one stream and masks them in b.
func (x *exchange) judgeTexts(b []byte, texts []jsonText) guard.Decision {
	n := 0
	for _, s := range texts {
		n += s.to - s.from
	}
	text := make([]byte, 0, n)
	for _, s := range texts {
		text = appendText(text, b[s.from:s.to])
	}
	out, d := whole(x.filter(), text)
	if d.Action.Stops() || bytes.Equal(out, text) {
		return d
	}
	at := 0
	var buf []byte
	for _, s := range texts {
		buf = appendText(buf[:0], b[s.from:s.to])
		patch(s.key, b[s.from:s.to], buf, out[at:at+len(buf)])
		at += len(buf)
	}
	return d
}

// minData is how long base64 must be, in bytes, to be taken for a file's.
const minData = 24

// isData says whether the inside of a JSON string, a member's of that name, is a
// file in base64, or a data URL of one.
func isData(key string, raw []byte) bool {
	switch key {
	case "data", "file_data", "url", "image_url", "b64_json", "bytesBase64Encoded":
	default:
		return false
	}
	if bytes.IndexByte(raw, '\\') >= 0 {
		raw = decodeJSON(raw)
	}
	_, ok := base64Part(raw)
	return ok
}

// base64Part is the base64 in text: all of it, or what a data URL (RFC 2397) holds.
func base64Part(text []byte) (from int, ok bool) {
	if bytes.HasPrefix(text, []byte("data:")) {
		i := bytes.IndexByte(text[:min(len(text), 256)], ',')
		if i < 0 || !bytes.HasSuffix(text[:i], []byte(";base64")) {
			return 0, false
		}
		from = i + 1
	}
	data := bytes.TrimRight(text[from:], "=")
	if len(data) < minData || len(text)-from-len(data) > 2 {
		return 0, false
	}
	for _, c := range data {
		if !isBase64(c) {
			return 0, false
		}
	}
	return from, true
}

func isBase64(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '/' || c == '-' || c == '_'
}

// judgeData shows what the base64 string s of b decodes to to the leak line, and
// puts it back masked.
func (x *exchange) judgeData(b []byte, s jsonText) guard.Decision {
	pass := guard.Decision{Action: guard.Pass}
	raw := b[s.from:s.to]
	if s.name || !isData(s.key, raw) {
		return pass
	}
	text := decodeJSON(raw)
	from, ok := base64Part(text)
	if !ok {
		return pass
	}
	enc := base64.RawStdEncoding
	if bytes.ContainsAny(text[from:], "-_") {
		enc = base64.RawURLEncoding
	}
	data := bytes.TrimRight(text[from:], "=")
	plain := make([]byte, enc.DecodedLen(len(data)))
	n, err := enc.Decode(plain, data)
	if err != nil {
		var bad base64.CorruptInputError
		if !errors.As(err, &bad) {
			return pass
		}
		n = min(n, len(plain))
	}
	out, d := whole(x.filter(), plain[:n])
	if d.Action.Stops() || bytes.Equal(out, plain[:n]) {
		return d
	}
	masked := bytes.Clone(text)
	copy(masked[from:], enc.EncodeToString(out))
	patchData(raw, text, masked)
	return d
}

// patch is patchText, or, where it is a file, patchData.
func patch(key string, raw, was, text []byte) {
	if !isData(key, raw) {
		patchText(raw, was, text)
		return
	}
	letters := bytes.Clone(text)
	for i, c := range letters {
		if c != was[i] && !isBase64(c) {
			letters[i] = 'A'
		}
	}
	patchData(raw, was, letters)
}

// patchData is patchText for base64, of which any letter may stand by itself.
func patchData(raw, was, text []byte) {
	for i, k := 0, 0; i < len(raw) && k < len(text); k++ {
		n, _ := unit(raw[i:], nil)
		if was[k] != text[k] {
			putData(raw[i:i+n], text[k])
		}
		i += n
	}
}

// putData writes the letter c of base64 over one character of a JSON string. What
// stands for "/" in two bytes stays: nothing else has that length.
func putData(raw []byte, c byte) {
	switch len(raw) {
	case 1:
		raw[0] = c
	case 6:
		const hex = "0123456789abcdef"
		copy(raw, []byte{'\\', 'u', '0', '0', hex[c>>4], hex[c&15]})
	}
}
