package export

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"guard/audit"
)

// traceID is a session's trace: the same wherever it is computed.
func traceID(session string) string {
	sum := sha256.Sum256([]byte("guard trace " + session))
	return hex.EncodeToString(sum[:16])
}

// spanID is the span that a record is about: its own, or that of what it completes.
func spanID(r audit.Record) string {
	seq := r.Seq
	if r.Of != 0 {
		seq = r.Of
	}
	if r.Type == audit.TypeSessionStart || r.Type == audit.TypeSessionEnd {
		return rootSpan(r.Session)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "guard span %s %d", r.Session, seq))
	return hex.EncodeToString(sum[:8])
}

func rootSpan(session string) string {
	sum := sha256.Sum256([]byte("guard span " + session))
	return hex.EncodeToString(sum[:8])
}

// TracesData is what is sent to /v1/traces.
type TracesData struct {
	ResourceSpans []resourceSpans `json:"resourceSpans"`
}

type resourceSpans struct {
	Resource   resource     `json:"resource"`
	ScopeSpans []scopeSpans `json:"scopeSpans"`
}

type scopeSpans struct {
	Scope scope  `json:"scope"`
	Spans []span `json:"spans"`
}

type span struct {
	TraceID           string     `json:"traceId"`
	SpanID            string     `json:"spanId"`
	ParentSpanID      string     `json:"parentSpanId,omitempty"`
	Name              string     `json:"name"`
	Kind              int        `json:"kind"`
	StartTimeUnixNano string     `json:"startTimeUnixNano"`
	EndTimeUnixNano   string     `json:"endTimeUnixNano"`
	Attributes        []keyValue `json:"attributes"`
	Status            spanStatus `json:"status"`
}

type spanStatus struct {
	Code    int    `json:"code,omitempty"` // 1 ok, 2 error
	Message string `json:"message,omitempty"`
}

// Traces returns what ended in recs as OTLP spans: a session is a trace, and its root
// span comes with its end; a use is a span of it, which comes with its outcome.
// The second result is how many spans there are.
func Traces(s Source, recs []audit.Record) (TracesData, int) {
	out := scopeSpans{Scope: scope{Name: "guard/audit", Version: s.Version}, Spans: []span{}}
	for _, r := range recs {
		if r.Session == "" || r.Type != audit.TypeResult && r.Type != audit.TypeSessionEnd {
			continue
		}
		end := r.Time.UnixNano()
		sp := span{
			TraceID: traceID(r.Session), SpanID: spanID(r), Kind: 3, // client
			StartTimeUnixNano: fmt.Sprint(end - int64(r.DurationMS*1e6)), EndTimeUnixNano: fmt.Sprint(end),
		}
		if r.Type == audit.TypeSessionEnd {
			sp.Name, sp.Kind = "session", 1 // internal
		} else {
			sp.Name, sp.ParentSpanID = first(r.Scope, "use")+" "+r.Credential, rootSpan(r.Session)
		}
		for _, a := range attributes(r) {
			sp.Attributes = append(sp.Attributes, keyValue{"guard." + a.key, valueOf(a.value)})
		}
		switch r.Result {
		case "success":
			sp.Status.Code = 1
		case "failure":
			sp.Status = spanStatus{Code: 2, Message: r.Reason}
		}
		out.Spans = append(out.Spans, sp)
	}
	return TracesData{ResourceSpans: []resourceSpans{{Resource: s.resource(), ScopeSpans: []scopeSpans{out}}}}, len(out.Spans)
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
