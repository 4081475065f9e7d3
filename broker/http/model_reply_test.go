package http

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	nethttp "net/http"
	"slices"
	"strings"
	"testing"

	"guard"
)

// replyCase is how an API says a text in pieces, and how its client puts them
// together again.
type replyCase struct {
	kind   string
	host   string
	events func(pieces []string) []string // each ends with its separator
	// text is what the client makes of an event's JSON; "" for those without.
	text func(v map[string]any) string
}

func at(v any, path ...any) any {
	for _, p := range path {
		switch k := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[k]
		case int:
			l, _ := v.([]any)
			if k >= len(l) {
				return nil
			}
			v = l[k]
		}
	}
	return v
}

func str(v any) string { s, _ := v.(string); return s }

func sse(name string, v string) string {
	if name != "" {
		return "event: " + name + "\ndata: " + v + "\n\n"
	}
	return "data: " + v + "\n\n"
}

var replyCases = map[string]replyCase{
	"anthropic text": {"text/event-stream", "api.anthropic.com", func(ps []string) (out []string) {
		out = append(out, sse("message_start", `{"type":"message_start","message":{"id":"m","content":[]}}`), sse("content_block_start", `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`))
		for _, p := range ps {
			out = append(out, sse("content_block_delta", `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":`+quoted(p)+`}}`))
		}
		return append(out, sse("content_block_stop", `{"type":"content_block_stop","index":0}`), sse("message_stop", `{"type":"message_stop"}`))
	}, func(v map[string]any) string { return str(at(v, "delta", "text")) }},
	"anthropic tool": {"text/event-stream; charset=utf-8", "api.anthropic.com", func(ps []string) (out []string) {
		for _, p := range ps {
			out = append(out, sse("content_block_delta", `{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":`+quoted(p)+`}}`), sse("ping", `{"type": "ping"}`))
		}
		return append(out, sse("content_block_stop", `{"type":"content_block_stop","index":1}`))
	}, func(v map[string]any) string { return str(at(v, "delta", "partial_json")) }},
	"chat": {"text/event-stream", "api.openai.com", func(ps []string) (out []string) {
		for _, p := range ps {
			out = append(out, sse("", `{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":`+quoted(p)+`},"finish_reason":null}]}`))
		}
		return append(out, sse("", `{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`), sse("", `[DONE]`))
	}, func(v map[string]any) string { return str(at(v, "choices", 0, "delta", "content")) }},
	"chat tool": {"text/event-stream", "llm.test", func(ps []string) (out []string) {
		for _, p := range ps {
			out = append(out, sse("", `{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":`+quoted(p)+`}}]},"index":0}]}`))
		}
		return append(out, ": bye\n\n", sse("", `[DONE]`))
	}, func(v map[string]any) string {
		return str(at(v, "choices", 0, "delta", "tool_calls", 0, "function", "arguments"))
	}},
	"responses": {"text/event-stream", "api.openai.com", func(ps []string) (out []string) {
		for i, p := range ps {
			out = append(out, sse("response.output_text.delta", fmt.Sprintf(`{"type":"response.output_text.delta","sequence_number":%d,"item_id":"i","output_index":0,"content_index":0,"delta":%s}`, i, quoted(p))))
		}
		return append(out, sse("response.completed", `{"type":"response.completed","response":{"id":"r"}}`))
	}, func(v map[string]any) string { return str(v["delta"]) }},
	"google": {"text/event-stream", "generativelanguage.googleapis.com", func(ps []string) (out []string) {
		for _, p := range ps {
			out = append(out, "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":"+quoted(p)+"}],\"role\":\"model\"},\"index\":0}]}\r\n\r\n")
		}
		return append(out, "data: {\"candidates\":[{\"finishReason\":\"STOP\",\"index\":0}]}\r\n\r\n")
	}, func(v map[string]any) string {
		return str(at(v, "candidates", 0, "content", "parts", 0, "text"))
	}},
	"google's array": {"application/json; charset=UTF-8", "generativelanguage.googleapis.com", func(ps []string) (out []string) {
		for i, p := range ps {
			open := ",\n"
			if i == 0 {
				open = "["
			}
			out = append(out, open+"{\"candidates\":[{\"content\":{\"parts\":[{\"text\":"+quoted(p)+"}]}}]}")
		}
		return append(out, "\n]")
	}, func(v map[string]any) string {
		return str(at(v, "candidates", 0, "content", "parts", 0, "text"))
	}},
	"lines": {"application/x-ndjson", "llm.test", func(ps []string) (out []string) {
		for _, p := range ps {
			out = append(out, `{"message":{"role":"assistant","content":`+quoted(p)+`},"done":false}`+"\n")
		}
		return append(out, `{"done":true}`+"\n")
	}, func(v map[string]any) string { return str(at(v, "message", "content")) }},
	"whole": {"application/json", "api.openai.com", func(ps []string) (out []string) {
		return []string{`{"choices":[{"message":{"content":` + quoted(strings.Join(ps, "")) + `}}]}`}
	}, func(v map[string]any) string { return str(at(v, "choices", 0, "message", "content")) }},
}

// said is the text of a reply, as its client reads it.
func said(t *testing.T, c replyCase, body string) string {
	t.Helper()
	var out strings.Builder
	one := func(s string) {
		var v map[string]any
		if err := json.Unmarshal([]byte(s), &v); err != nil {
			t.Fatalf("an event is no JSON any more: %q in %q", s, body)
		}
		out.WriteString(c.text(v))
	}
	switch {
	case strings.HasPrefix(c.kind, "text/event-stream"):
		for line := range strings.Lines(body) {
			if d, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "data: "); ok && d != "[DONE]" {
				one(d)
			}
		}
	case strings.HasPrefix(body, "["):
		var vs []json.RawMessage
		if err := json.Unmarshal([]byte(body), &vs); err != nil {
			t.Fatalf("no JSON any more: %q", body)
		}
		for _, v := range vs {
			one(string(v))
		}
	default:
		for line := range strings.Lines(body) {
			one(line)
		}
	}
	return out.String()
}

// pieces cuts s in n.
func pieces(s string, size int) (out []string) {
	for c := range slices.Chunk([]byte(s), size) {
		out = append(out, string(c))
	}
	return out
}

// A value that the model says is hidden however the reply cuts it, in the form that
// the client puts together again, and what is not a value arrives as it was said.
func TestModelReply(t *testing.T) {
	for name, c := range replyCases {
		t.Run(name, func(t *testing.T) {
			e, _ := modelEnv(t)
			var events []string
			var coding string
			e.upstream(c.host, 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
				w.Header().Set("Content-Type", c.kind)
				if coding != "" {
					w.Header().Set("Content-Encoding", coding)
					w.Write(coded(t, coding, []byte(strings.Join(events, ""))))
					return
				}
				for _, ev := range events {
					io.WriteString(w, ev)
					w.(nethttp.Flusher).Flush()
				}
			}))
			client := e.client(c.host, 443, len(name)%2 == 0)
			// Not the host's own value: a model may know any.
			said1 := `{"command":"echo \"` + tokenValue + `\" é \\ ` + keyValue + ` and ` + tokenValue[:20] + `"} then`
			want := strings.NewReplacer(tokenValue, tokenPlaceholder, keyValue, keyPlaceholder).Replace(said1)
			for _, size := range []int{1, 2, 3, 7, 8, 9, 16, 39, 40, 41, 1000} {
				for _, coding = range []string{"", "gzip", "br", "zstd"} {
					if coding != "" && size != 7 {
						continue
					}
					events = c.events(pieces(strings.ReplaceAll(said1, "é", "e"), size))
					res, body := do(t, client, "POST", "https://"+c.host+"/v1/messages", strings.NewReader("{}"), "Content-Type", "application/json")
					if res.StatusCode != 200 || len(body) != len(strings.Join(events, "")) {
						t.Fatalf("%d, %d bytes of %d: %s", res.StatusCode, len(body), len(strings.Join(events, "")), body)
					}
					if got := said(t, c, body); got != strings.ReplaceAll(want, "é", "e") {
						t.Fatalf("in pieces of %d, %s: %s", size, coding, got)
					}
					if strings.Contains(body, tokenValue) || strings.Contains(body, keyValue) {
						t.Fatalf("it holds a value: %s", body)
					}
				}
			}
		})
	}
}

// An event that cannot be a part of a value comes at once, although the reply goes
// on; one that may be waits, and no longer than that is open.
func TestModelReplyStreams(t *testing.T) {
	e, _ := modelEnv(t)
	say := make(chan string)
	e.upstream("api.anthropic.com", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(nethttp.Flusher).Flush()
		for s := range say {
			io.WriteString(w, s)
			w.(nethttp.Flusher).Flush()
		}
	}))
	delta := func(i int, s string) string {
		return sse("content_block_delta", fmt.Sprintf(`{"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":%s}}`, i, quoted(s)))
	}
	res, err := e.client("api.anthropic.com", 443, true).Post("https://api.anthropic.com/v1/messages", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	r := bufio.NewReader(res.Body)
	next := func(want string) {
		t.Helper()
		got := ""
		for range strings.Count(want, "\n") {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			got += line
		}
		if got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	for _, s := range []string{"one", " two ", "ends in " + tokenValue[:4]} {
		say <- delta(0, s)
		next(delta(0, s)) // fewer than 8 bytes of a value do not wait for the next event
	}
	say <- delta(1, "x "+tokenValue[:12])
	say <- delta(2, "another block")
	say <- delta(1, tokenValue[12:30])
	say <- delta(1, tokenValue[30:]+".")
	next(delta(1, "x "+tokenPlaceholder[:12]) + delta(2, "another block") + delta(1, tokenPlaceholder[12:30]) + delta(1, tokenPlaceholder[30:]+"."))
	// What is no value after all, and what never goes on.
	say <- delta(1, tokenValue[:20])
	say <- delta(1, " no")
	next(delta(1, tokenValue[:20]) + delta(1, " no"))
	stop := sse("content_block_stop", `{"type":"content_block_stop","index":1}`)
	say <- delta(1, "end "+tokenValue[:20])
	say <- stop
	next(delta(1, "end "+strings.Repeat("*", 20)) + stop)
	say <- delta(2, tokenValue[:20])
	close(say)
	rest, err := io.ReadAll(r)
	if err != nil || string(rest) != delta(2, strings.Repeat("*", 20)) {
		t.Errorf("at the end: %q %v", rest, err)
	}
}

// Cut anywhere on the wire, the same comes out, and nothing that is no event of
// the form that is expected breaks it.
func TestModelReplyCuts(t *testing.T) {
	for _, reply := range []struct{ kind, body, want string }{
		{"text/event-stream", "data: {\"a\":\"x " + keyValue + "\"}\n\n", "data: {\"a\":\"x " + keyPlaceholder + "\"}\n\n"},
		{"text/event-stream", "data: {\"a\":\r\ndata: \"" + keyValue + "\"}\r\n\r\ndata:{\"b\":1}\r\r", "data: {\"a\":\r\ndata: \"" + keyPlaceholder + "\"}\r\n\r\ndata:{\"b\":1}\r\r"},
		{"text/event-stream", "data: not JSON " + keyValue + "\n\n: " + keyValue + "\n", "data: not JSON " + keyPlaceholder + "\n\n: " + keyPlaceholder + "\n"},
		{"text/event-stream", "data: {\"a\":\"" + keyValue[:9] + "\"}\n\ndata: {\"a\":\"" + keyValue[9:] + "\"}", "data: {\"a\":\"" + keyPlaceholder[:9] + "\"}\n\ndata: {\"a\":\"" + keyPlaceholder[9:] + "\"}"},
		{"application/json", `{"a":"` + escapedAll(keyValue) + `"}`, `{"a":"` + escapedAll(keyPlaceholder) + `"}`},
		{"application/json", `{"a":["` + keyValue[:9] + `","` + keyValue[9:] + `"]} trailing`, `{"a":["` + keyPlaceholder[:9] + `","` + keyPlaceholder[9:] + `"]} trailing`},
		{"application/json", `{"a":"unfinished ` + keyValue, `{"a":"unfinished ` + keyPlaceholder},
		{"application/json", `"` + keyValue + `"`, `"` + keyPlaceholder + `"`},
		{"application/json", `[["]}"],{"}":"[{` + keyValue + `"},1]`, `[["]}"],{"}":"[{` + keyPlaceholder + `"},1]`},
		{"text/plain", "plain " + keyValue, "plain " + keyPlaceholder},
	} {
		for _, size := range []int{1, 2, 5, 13, 1000} {
			f := modelReply(nethttp.Header{"Content-Type": {reply.kind}}, func() guard.Filter {
				return search(guard.Redact, map[string]string{keyValue: keyPlaceholder}, nil)
			})
			var got []byte
			for _, p := range pieces(reply.body, size) {
				out, _ := f([]byte(p), guard.More)
				got = append(got, out...)
				if reply.kind != "text/plain" { // a pause lets go of fewer than 8 bytes
					out, _ = f(nil, guard.Pause)
					got = append(got, out...)
				}
			}
			out, _ := f(nil, guard.End)
			if got = append(got, out...); string(got) != reply.want {
				t.Errorf("%s in pieces of %d:\n%q, want\n%q", reply.kind, size, got, reply.want)
			}
		}
	}
}

// A server that never ends an event, or has no end of texts, costs bounded memory.
func TestModelReplyIsBounded(t *testing.T) {
	open := func() guard.Filter { return search(guard.Redact, map[string]string{keyValue: ""}, nil) }
	f := modelReply(nethttp.Header{"Content-Type": {"text/event-stream"}}, open)
	n, sent := 0, 0
	line := []byte("data: " + strings.Repeat("x", 1<<20) + "\n")
	for range maxEvent>>20 + 2 {
		out, _ := f(line, guard.More)
		n, sent = n+len(out), sent+len(line)
	}
	if sent-n > maxEvent {
		t.Errorf("%d of %d bytes are held back", sent-n, sent)
	}
	r := &replyTexts{open: open, split: new(eventSplit), parts: map[string]*partText{}}
	for i := range maxParts * 2 {
		r.filter([]byte(fmt.Sprintf("data: {\"k%d\":\"x\"}\n\n", i)), guard.More)
	}
	if len(r.parts) > maxParts || len(r.queue) > 0 {
		t.Errorf("%d texts, %d events", len(r.parts), len(r.queue))
	}
}
