package http

import (
	"fmt"
	nethttp "net/http"
	"strings"
	"testing"

	"guard"
	"guard/matcher"
)

// benchFilter is a search for 200 values that masks nothing.
func benchFilter(b *testing.B) guard.OpenFilter {
	var values []guard.Value
	for i := range 200 {
		values = append(values, guard.Value{ID: guard.SecretID{Name: fmt.Sprint("v", i), Version: 1}, Secret: guard.NewSecret([]byte(fmt.Sprintf("bench-%032d-value", i*7919)))})
	}
	m, err := matcher.New(values)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { m.Close() })
	return func(guard.Origin) guard.Filter {
		s := m.Stream()
		return func(p []byte, step guard.Step) ([]byte, guard.Decision) {
			s.Write(p)
			if step == guard.End {
				s.Close()
			}
			return p, guard.Decision{Action: guard.Pass}
		}
	}
}

func benchPrompt(n int) []byte {
	var b strings.Builder
	b.WriteString(`{"messages":[`)
	for i := 0; b.Len() < n; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"role":"user","content":[{"type":"text","text":"line %d of what a tool printed:\n\tfunc main() { fmt.Println(\"hello\") } // and so on\n"}]}`, i)
	}
	return []byte(b.String() + "]}")
}

// BenchmarkModelRequest compares a body that is looked through as it is with one
// that is looked through as JSON.
func BenchmarkModelRequest(b *testing.B) {
	open := benchFilter(b)
	for _, size := range []int{4 << 10, 200 << 10, 4 << 20} {
		body := benchPrompt(size)
		for _, model := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dKiB/json=%v", size>>10, model), func(b *testing.B) {
				x := &exchange{p: &Proxy{cfg: Config{Open: open, Creds: func() []guard.Credential { return nil }}}, model: model, view: &view{}, in: &nethttp.Request{}}
				b.SetBytes(int64(len(body)))
				for b.Loop() {
					x.judge(body)
				}
			})
		}
	}
}

// BenchmarkModelReply is the time that one event of a streamed reply takes.
func BenchmarkModelReply(b *testing.B) {
	open := benchFilter(b)
	ev := []byte(sse("content_block_delta", `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" and some"}}`))
	for _, kind := range []string{"text/plain", "text/event-stream"} {
		b.Run(kind, func(b *testing.B) {
			f := modelReply(nethttp.Header{"Content-Type": {kind}}, func() guard.Filter { return open(guard.Origin{}) })
			for b.Loop() {
				if out, _ := f(ev, guard.More); len(out) == 0 {
					b.Fatal("held back")
				}
			}
		})
	}
}
