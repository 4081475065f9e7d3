package http

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"guard"
)

func maybeCoded(t *testing.T, coding string, b []byte) []byte {
	if coding == "" {
		return b
	}
	return coded(t, coding, b)
}

func modelEnv(t *testing.T, hosts ...string) (*env, *seen) {
	e := newEnv(t, func(_ *env, c *Config) { c.Models = []string{"llm.test"} })
	e.action = guard.Redact
	s := &seen{}
	for _, h := range append(hosts, "api.anthropic.com", "api.openai.com", "generativelanguage.googleapis.com", "llm.test") {
		e.upstream(h, 443, s)
	}
	return e, s
}

func quoted(s string) string { b, _ := json.Marshal(s); return string(b) }

// escapedAll is s as \u00xx.
func escapedAll(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, `\u%04x`, c)
	}
	return b.String()
}

// A value that is told to a model is masked where it is, the request stays JSON of
// the same length, and the rest of it arrives.
func TestModelRequest(t *testing.T) {
	e, s := modelEnv(t)
	half := len(canary) / 2
	a, b := canary[:half], canary[half:]
	in64 := base64.StdEncoding.EncodeToString([]byte("a document\nwith " + canary + " in it"))
	// In a file that is base64, as no search in the base64 finds it.
	deep := base64.StdEncoding.EncodeToString([]byte(`{"k":"` + base64.StdEncoding.EncodeToString([]byte(canary)) + `"}`))
	const ant, oai, goo = "https://api.anthropic.com/v1/messages", "https://api.openai.com/v1/chat/completions", "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent"
	for name, c := range map[string]struct{ url, body string }{
		"prompt":            {ant, `{"messages":[{"role":"user","content":"explain ` + canary + ` to me"}]}`},
		"escaped":           {oai, `{"messages":[{"role":"user","content":"` + escapedAll(canary) + `"}]}`},
		"in a tool's call":  {oai, `{"messages":[{"role":"assistant","tool_calls":[{"type":"function","function":{"arguments":` + quoted(`{"cmd":`+quoted("echo "+canary)+`}`) + `}}]}]}`},
		"three deep":        {oai, `{"input":` + quoted(quoted(quoted(`"`+canary+`"`))) + `}`},
		"two parts":         {ant, `{"messages":[{"role":"user","content":[{"type":"text","text":"see ` + a + `"},{"type":"text","text":"` + b + ` ok"}]}]}`},
		"two results":       {ant, `{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"x` + a + `"},{"type":"tool_result","tool_use_id":"t2","content":[{"type":"text","text":"` + b + `"}]}]}]}`},
		"two messages":      {oai, `{"messages":[{"role":"user","content":"` + a + `"},{"role":"user","content":"` + b + `"}]}`},
		"round an image":    {ant, `{"messages":[{"content":[{"type":"text","text":"` + a + `"},{"type":"image","source":{"type":"url","url":"https://x.test/i.png"}},{"type":"text","text":"` + b + `"}]}]}`},
		"by letters":        {oai, `{"input":["` + strings.Join(strings.Split(canary, ""), `","`) + `"]}`},
		"google's parts":    {goo, `{"contents":[{"parts":[{"text":"` + a + `"},{"text":"` + b + `"}]}]}`},
		"function response": {goo, `{"contents":[{"parts":[{"functionResponse":{"name":"sh","response":{"output":"Output: ` + canary + `\n"}}}]}]}`},
		"a document":        {ant, `{"messages":[{"content":[{"type":"document","source":{"type":"base64","media_type":"text/plain","data":"` + in64 + `"}}]}]}`},
		"a deep document":   {ant, `{"messages":[{"content":[{"type":"document","source":{"type":"base64","media_type":"text/plain","data":"` + deep + `"}}]}]}`},
		"inline data":       {goo, `{"contents":[{"parts":[{"inlineData":{"mimeType":"text/plain","data":"` + in64 + `"}}]}]}`},
		"a data URL":        {oai, `{"messages":[{"content":[{"type":"image_url","image_url":{"url":"data:image\/png;base64,` + deep + `"}}]}]}`},
		"embeddings":        {"https://api.openai.com/v1/embeddings", `{"model":"m","input":["one","` + canary + `"]}`},
		"responses":         {"https://api.openai.com/v1/responses", `{"model":"m","input":[{"type":"function_call_output","call_id":"c","output":"` + canary + `"}],"stream":true}`},
		"batches":           {"https://api.anthropic.com/v1/messages/batches", `{"requests":[{"custom_id":"a","params":{"messages":[{"role":"user","content":"` + canary + `"}]}}]}`},
		"compatible":        {"https://llm.test/v1/chat/completions", `{"messages":[{"role":"user","content":"` + canary + `"}]}`},
		"a name":            {oai, `{"metadata":{"` + canary + `":"x"}}`},
		"JSON lines":        {"https://api.openai.com/v1/files", "{\"a\":\"" + canary + "\"}\n{\"a\":\"b\"}\n"},
		"after an escape":   {oai, `{"content":"line\n` + canary + `\nline\\` + canary + `\""}`},
		"between escapes":   {oai, `{"content":"` + a + escapedAll(b) + `"}`},
	} {
		for _, h2 := range []bool{false, true} {
			u := strings.SplitN(strings.TrimPrefix(c.url, "https://"), "/", 2)[0]
			client := e.client(u, 443, h2)
			for _, coding := range []string{"", "gzip", "zstd", "br"} {
				for _, stream := range []bool{false, true} {
					var body io.Reader = bytes.NewReader(maybeCoded(t, coding, []byte(c.body)))
					if stream {
						body = struct{ io.Reader }{body} // of a length that is not told
					}
					head := []string{"Content-Type", "application/json"}
					if coding != "" {
						head = append(head, "Content-Encoding", coding)
					}
					e.mu.Lock()
					e.leaks = nil
					e.mu.Unlock()
					res, text := do(t, client, "POST", c.url, body, head...)
					r, got := s.last()
					if res.StatusCode != 200 || len(got) != len(c.body) || r.ContentLength != int64(len(c.body)) || r.Header.Get("Content-Encoding") != "" {
						t.Fatalf("%s %s h2=%v: %d %s, length %d, want %d: %s", name, coding, h2, res.StatusCode, text, r.ContentLength, len(c.body), got)
					}
					holds(t, name+" "+coding, got)
					wantJSON(t, name, c.body, got)
					e.mu.Lock()
					if len(e.leaks) == 0 || !e.leaks[0].Model {
						t.Errorf("%s: leaks %v", name, e.leaks)
					}
					e.mu.Unlock()
				}
			}
		}
	}
}

// holds fails where text has the canary in any of the ways of these tests.
func holds(t *testing.T, name, text string) {
	t.Helper()
	var all strings.Builder
	all.WriteString(text)
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			all.WriteString(v)
			var sub any
			if json.Unmarshal([]byte(v), &sub) == nil {
				walk(sub)
			}
			_, data, ok := strings.Cut(v, ";base64,")
			if !ok {
				data = v
			}
			if b, err := base64.StdEncoding.DecodeString(data); err == nil && len(v) > 20 {
				if json.Unmarshal(b, &sub) == nil {
					walk(sub)
				}
				all.WriteString("\n" + string(b))
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for k, e := range v {
				all.WriteString("\n" + k + "\n")
				walk(e)
			}
		}
	}
	d := json.NewDecoder(strings.NewReader(text))
	for {
		var v any
		if err := d.Decode(&v); err == io.EOF {
			break
		} else if err != nil {
			t.Errorf("%s: not JSON any more: %v: %s", name, err, text)
			break
		}
		walk(v)
	}
	for _, part := range []string{canary, canary[:len(canary)/2], canary[len(canary)/2:]} {
		if strings.Contains(all.String(), part) {
			t.Errorf("%s: it holds %q: %s", name, part, text)
		}
	}
}

// wantJSON checks that got has the structure of want.
func wantJSON(t *testing.T, name, want, got string) {
	t.Helper()
	shape := func(s string) string {
		d, ok := parseJSON([]byte(s))
		if !ok {
			t.Fatalf("%s: not JSON: %s", name, s)
		}
		var b strings.Builder
		for i, x := range d.texts {
			fmt.Fprintf(&b, "%d %d %v\n", x.from, x.to, x.name)
			_ = i
		}
		return b.String()
	}
	if shape(want) != shape(got) {
		t.Errorf("%s: another structure:\n%s\n%s", name, want, got)
	}
}

// Where leaks are blocked, the API's own client understands why.
func TestModelRefusal(t *testing.T) {
	e, s := modelEnv(t)
	e.action = guard.Block
	for _, c := range []struct {
		url, kind string
		head      []string
	}{
		{"https://api.anthropic.com/v1/messages", "error.type=permission_error", nil},
		{"https://api.openai.com/v1/responses", "error.code=policy_denied", nil},
		{"https://generativelanguage.googleapis.com/v1beta/models/m:streamGenerateContent?alt=sse", "error.status=PERMISSION_DENIED", nil},
		{"https://llm.test/v1/messages", "error.type=permission_error", nil},
		{"https://llm.test/x", "error.type=permission_error", []string{"Anthropic-Version", "2023-06-01"}},
		{"https://llm.test/v1/chat/completions", "error.type=policy_denied", nil},
		{"https://llm.test/models/m:generateContent", "error.code=403", nil},
	} {
		host := strings.SplitN(strings.TrimPrefix(c.url, "https://"), "/", 2)[0]
		half := len(canary) / 2
		for _, body := range []string{`{"a":"` + canary + `"}`, `{"a":[{"text":"` + canary[:half] + `"},{"text":"` + canary[half:] + `"}]}`} {
			res, text := do(t, e.client(host, 443, true), "POST", c.url, strings.NewReader(body), append(c.head, "Content-Type", "application/json")...)
			var m map[string]any
			if err := json.Unmarshal([]byte(text), &m); err != nil || res.StatusCode != 403 || res.Header.Get("X-Guard-Decision") != "deny" {
				t.Fatalf("%s: %d %s", c.url, res.StatusCode, text)
			}
			key, want, _ := strings.Cut(strings.TrimPrefix(c.kind, "error."), "=")
			inner, _ := m["error"].(map[string]any)
			if fmt.Sprint(inner[key]) != want || !strings.Contains(fmt.Sprint(inner["message"]), "guard: ") || host == "api.anthropic.com" && m["type"] != "error" {
				t.Errorf("%s: %s", c.url, text)
			}
			for _, k := range []string{"layer", "credential", "host", "method", "path", "rule", "reason", "next_steps", "request_id"} {
				if _, ok := m[k]; !ok {
					t.Errorf("%s: no %s: %s", c.url, k, text)
				}
			}
			if strings.Contains(text, canary) {
				t.Errorf("%s: it holds the value", c.url)
			}
		}
	}
	if n := s.completed(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// A file that is uploaded is redacted as it streams, and stays what it is.
func TestModelUpload(t *testing.T) {
	e, s := modelEnv(t)
	for _, url := range []string{"https://api.anthropic.com/v1/files", "https://api.openai.com/v1/files", "https://generativelanguage.googleapis.com/upload/v1beta/files"} {
		for _, coding := range []string{"", "gzip"} {
			for _, stream := range []bool{false, true} {
				var b bytes.Buffer
				w := multipart.NewWriter(&b)
				f, _ := w.CreateFormFile("file", "batch.jsonl")
				lines := `{"custom_id":"1","body":{"a":"line\n` + canary + `\\"}}` + "\n" + `{"x":"` + base64.StdEncoding.EncodeToString([]byte(canary)) + `"}` + "\n"
				io.WriteString(f, lines)
				f, _ = w.CreateFormFile("other", "notes.txt")
				io.WriteString(f, "{ notes: "+canary+"\n")
				w.WriteField("purpose", "batch")
				w.Close()
				head := []string{"Content-Type", w.FormDataContentType()}
				var body io.Reader = bytes.NewReader(maybeCoded(t, coding, b.Bytes()))
				if coding != "" {
					head = append(head, "Content-Encoding", coding)
				}
				if stream {
					body = struct{ io.Reader }{body}
				}
				host := strings.SplitN(strings.TrimPrefix(url, "https://"), "/", 2)[0]
				res, text := do(t, e.client(host, 443, !stream), "POST", url, body, head...)
				r, got := s.last()
				if res.StatusCode != 200 || len(got) != b.Len() {
					t.Fatalf("%s %s: %d %s %q", url, coding, res.StatusCode, text, got)
				}
				r.Body = io.NopCloser(strings.NewReader(got))
				form, err := multipart.NewReader(r.Body, w.Boundary()).ReadForm(1 << 20)
				if err != nil || form.Value["purpose"][0] != "batch" {
					t.Fatalf("%s: %v", url, err)
				}
				open := func(name string) string {
					f, err := form.File[name][0].Open()
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
					b, _ := io.ReadAll(f)
					return string(b)
				}
				if strings.Contains(got, canary) || !strings.Contains(open("other"), "{ notes: ***") {
					t.Errorf("%s: %s", url, got)
				}
				if coding == "" {
					holds(t, url, open("file"))
					wantJSON(t, url, lines, open("file"))
				}
			}
		}
	}
}

// What is larger than is taken whole streams on, masked, and stays JSON.
func TestModelLargeRequest(t *testing.T) {
	e, _ := modelEnv(t)
	type result struct {
		n    int64
		ok   bool
		bare bool
	}
	got := make(chan result, 1)
	e.upstream("api.openai.com", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- result{int64(len(b)), json.Valid(b), bytes.Contains(b, []byte(canary))}
	}))
	pad := strings.Repeat(`"word \n word",`, maxModelBody/15+1)
	body := `{"a":[` + pad + `"line\n` + canary + `\\"]}`
	res, text := do(t, e.client("api.openai.com", 443, false), "POST", "https://api.openai.com/v1/responses", strings.NewReader(body), "Content-Type", "application/json")
	if r := <-got; res.StatusCode != 200 || r.n != int64(len(body)) || !r.ok || r.bare {
		t.Errorf("%d %s: %+v", res.StatusCode, text, r)
	}
}

// However a mask lies over a JSON text, the text stays one of the same structure.
func TestMendKeepsJSON(t *testing.T) {
	const text = "{\"a\\\"b\":[\"x\\u0041\\ud83d\\ude00\\\\\\\"y\xc3\xa9\",12.50e3,true,null,{\"data\":\"QUJDREVGR0hJSktMTU5PUFFS\\/1NU\\u002bVQ==\"}],\"z\":\"\"}"
	doc, ok := parseJSON([]byte(text))
	if !ok {
		t.Fatal("not taken for JSON")
	}
	for from := range len(text) {
		for to := from + 1; to <= len(text); to++ {
			masked := []byte(text)
			for i := from; i < to; i++ {
				masked[i] = '*'
			}
			whole := bytes.Clone(masked)
			mend(doc, []byte(text), whole)
			var v struct {
				A []any `json:"a\"b"`
			}
			if !json.Valid(whole) {
				t.Fatalf("%d to %d: %s", from, to, whole)
			}
			wantJSON(t, "mend", text, string(whole))
			if data, ok := json.Unmarshal(whole, &v) == nil, len(v.A) == 5; data && ok {
				s := v.A[4].(map[string]any)["data"]
				if s != nil {
					if _, err := base64.StdEncoding.DecodeString(s.(string)); err != nil && to-from > 2 && !strings.Contains(s.(string), "A") {
						t.Fatalf("%d to %d: data is no base64: %v", from, to, s)
					}
				}
			}
			// In pieces, of any size.
			for cut := 1; cut < 14; cut++ {
				m, out := new(jsonMasks), []byte(nil)
				for i := 0; i < len(text); i += cut {
					j := min(i+cut, len(text))
					out = append(out, m.step([]byte(text[i:j]), masked[i:j], j == len(text))...)
				}
				if !json.Valid(out) || len(out) != len(text) {
					t.Fatalf("%d to %d, in pieces of %d: %s", from, to, cut, out)
				}
			}
		}
	}
}

// What is not JSON is not taken for it.
func TestParseJSON(t *testing.T) {
	for _, s := range []string{`{`, `{"a"}`, `{"a":}`, `[1,]`, `{"a":1,}`, `"a`, `"\q"`, `"\u12"`, "\"a\nb\"", `tru`, `nulll`, `01x`, `1.2.3`, `{a:1}`, `[1 2]`, `}`, strings.Repeat("[", 1000)} {
		if _, ok := parseJSON([]byte(s)); ok {
			t.Errorf("%.40q was taken for JSON", s)
		}
	}
	for _, s := range []string{``, ` `, `1`, `-1.5e+10`, `[]`, `{}`, `[[],{}]`, `{"a":{"b":[1,"x",true]}} {"c":null}`, "1\n2\n", `"\ud83d"`} {
		if _, ok := parseJSON([]byte(s)); !ok {
			t.Errorf("%q was not taken for JSON", s)
		}
	}
}

func FuzzModelJSON(f *testing.F) {
	f.Add([]byte(`{"a":"x\u0041","b":[1,true,{"data":"QUJDREVGR0hJSktMTU5PUFFS"}]}`), 5, 9)
	f.Add([]byte(`["\ud83d\ude00",12]`), 3, 20)
	f.Fuzz(func(t *testing.T, b []byte, from, to int) {
		doc, ok := parseJSON(b)
		if !ok {
			return
		}
		for _, s := range doc.texts {
			decodeJSON(b[s.from:s.to])
		}
		out := bytes.Clone(b)
		for i := max(from, 0); i < min(to, len(b)); i++ {
			out[i] = '*'
		}
		mend(doc, b, out)
		after, ok := parseJSON(out)
		if !ok || len(after.texts) != len(doc.texts) {
			t.Fatalf("%q became %q", b, out)
		}
	})
}

// Values that a mask cannot be laid over without care: they begin inside of an
// escape, end in one, reach over quotes, or are a number.
var slyValues = []string{"nested-value-0123456789", `ends-in-a-backslash\`, `over","the","quotes`, "7391465028135792468"}

// However a value lies in a JSON text, what is masked is one.
func TestModelMasksKeepJSON(t *testing.T) {
	masks := map[string]string{base64.StdEncoding.EncodeToString([]byte(canary)): ""}
	for _, v := range slyValues {
		masks[v] = ""
	}
	e := newEnv(t, func(e *env, c *Config) {
		c.Open = func(guard.Origin) guard.Filter { return search(guard.Redact, masks, nil) }
		c.Scrub = func([]guard.SecretID) guard.Filter { return search(guard.Redact, masks, nil) }
	})
	s := &seen{}
	reply := ""
	e.upstream("api.openai.com", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		s.ServeHTTP(httptest.NewRecorder(), r)
		w.Header().Set("Content-Type", "application/json")
		if strings.HasPrefix(reply, "data:") {
			w.Header().Set("Content-Type", "text/event-stream")
		}
		io.WriteString(w, reply)
	}))
	data := base64.StdEncoding.EncodeToString([]byte(canary))
	body := `{"a":"line\` + slyValues[0] + ` and ` + slyValues[1] + `\","b":["` + slyValues[2] + `","x"],"n":[` + slyValues[3] + `,-0.` + slyValues[3] + `],"data":"` + data + `","é":"\u00e9"}`
	client := e.client("api.openai.com", 443, true)
	wantMasked := func(what, got string) {
		t.Helper()
		if !json.Valid([]byte(got)) || len(got) != len(body) {
			t.Fatalf("%s: no JSON any more: %s", what, got)
		}
		wantJSON(t, what, body, got)
		for _, v := range slyValues {
			if strings.Contains(got, v) {
				t.Errorf("%s: it holds %s: %s", what, v, got)
			}
		}
		var v struct{ Data string }
		if json.Unmarshal([]byte(got), &v); what != "upload" {
			if b, err := base64.StdEncoding.DecodeString(v.Data); err != nil || strings.Contains(string(b), canary[:8]) {
				t.Errorf("%s: the data is no base64 any more: %s %v", what, v.Data, err)
			}
		}
	}
	do(t, client, "POST", "https://api.openai.com/v1/responses", strings.NewReader(body), "Content-Type", "application/json")
	_, got := s.last()
	wantMasked("request", got)

	form := "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f.jsonl\"\r\n\r\n" + body + "\n\r\n--b--\r\n"
	for _, chunked := range []bool{false, true} {
		var r io.Reader = strings.NewReader(form)
		if chunked {
			r = iotest.OneByteReader(r)
		}
		do(t, client, "POST", "https://api.openai.com/v1/files", r, "Content-Type", "multipart/form-data; boundary=b")
		_, got = s.last()
		_, got, _ = strings.Cut(got, "\r\n\r\n")
		got, _, _ = strings.Cut(got, "\n\r\n--b")
		wantMasked("upload", got)
	}

	// The arguments of a call are JSON inside of JSON, in pieces.
	for _, size := range []int{1, 3, 10, 1000} {
		c := replyCases["chat tool"]
		reply = strings.Join(c.events(pieces(strings.ReplaceAll(body, "é", "e"), size)), "")
		_, out := do(t, client, "POST", "https://api.openai.com/v1/chat/completions", strings.NewReader("{}"), "Content-Type", "application/json")
		if got := said(t, c, out); !json.Valid([]byte(got)) {
			t.Fatalf("in pieces of %d, the arguments are no JSON any more: %s", size, got)
		} else {
			for _, v := range slyValues {
				if strings.Contains(got, v) {
					t.Errorf("in pieces of %d: %s", size, got)
				}
			}
		}
	}
	reply = "data: " + body + "\r\n\r\n"
	_, got = do(t, client, "POST", "https://api.openai.com/v1/chat/completions", strings.NewReader("{}"), "Content-Type", "application/json")
	wantMasked("event", strings.TrimSuffix(strings.TrimPrefix(got, "data: "), "\r\n\r\n"))
	reply = body
	_, got = do(t, client, "POST", "https://api.openai.com/v1/chat/completions", strings.NewReader("{}"), "Content-Type", "application/json")
	wantMasked("reply", got)
}
