package export

import (
	"fmt"

	"guard/audit"
)

// The messages of OTLP 1.x in their JSON form, as far as guard sends them:
// opentelemetry.io/docs/specs/otlp. 64-bit integers are strings there.

// LogsData is what is sent to /v1/logs.
type LogsData struct {
	ResourceLogs []resourceLogs `json:"resourceLogs"`
}

type resourceLogs struct {
	Resource  resource    `json:"resource"`
	ScopeLogs []scopeLogs `json:"scopeLogs"`
}

type resource struct {
	Attributes []keyValue `json:"attributes"`
}

type scope struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
}

type scopeLogs struct {
	Scope      scope       `json:"scope"`
	LogRecords []logRecord `json:"logRecords"`
}

type logRecord struct {
	TimeUnixNano         string     `json:"timeUnixNano"`
	ObservedTimeUnixNano string     `json:"observedTimeUnixNano"`
	SeverityNumber       int        `json:"severityNumber"`
	SeverityText         string     `json:"severityText"`
	EventName            string     `json:"eventName,omitempty"`
	Body                 anyValue   `json:"body"`
	Attributes           []keyValue `json:"attributes"`
	TraceID              string     `json:"traceId,omitempty"`
	SpanID               string     `json:"spanId,omitempty"`
}

type keyValue struct {
	Key   string   `json:"key"`
	Value anyValue `json:"value"`
}

type anyValue struct {
	String *string  `json:"stringValue,omitempty"`
	Int    *string  `json:"intValue,omitempty"`
	Double *float64 `json:"doubleValue,omitempty"`
	Bool   *bool    `json:"boolValue,omitempty"`
}

func valueOf(v any) anyValue {
	switch v := v.(type) {
	case int64:
		s := fmt.Sprint(v)
		return anyValue{Int: &s}
	case float64:
		return anyValue{Double: &v}
	case bool:
		return anyValue{Bool: &v}
	}
	s := fmt.Sprint(v)
	return anyValue{String: &s}
}

func (s Source) resource() resource {
	r := resource{Attributes: []keyValue{{"service.name", valueOf("guard")}}}
	for _, kv := range []struct{ k, v string }{{"service.version", s.Version}, {"host.name", s.Host}, {"guard.log.key", s.Key}} {
		if kv.v != "" {
			r.Attributes = append(r.Attributes, keyValue{kv.k, valueOf(kv.v)})
		}
	}
	return r
}

// Logs returns records as OTLP logs. A record's attributes have the names of the log
// with "guard." before them; its session is the trace, and a use's seq the span,
// so that use and outcome are found together.
func Logs(s Source, recs []audit.Record) LogsData {
	logs := scopeLogs{Scope: scope{Name: "guard/audit", Version: s.Version}, LogRecords: []logRecord{}}
	for _, r := range recs {
		n := [...]int{informational: 9, low: 10, medium: 13, high: 17, critical: 21}[severityOf(r)]
		text := [...]string{informational: "INFO", low: "INFO2", medium: "WARN", high: "ERROR", critical: "FATAL"}[severityOf(r)]
		at := fmt.Sprint(r.Time.UnixNano())
		l := logRecord{TimeUnixNano: at, ObservedTimeUnixNano: at, SeverityNumber: n, SeverityText: text, EventName: "guard." + r.Type, Body: valueOf(title(r))}
		for _, a := range attributes(r) {
			l.Attributes = append(l.Attributes, keyValue{"guard." + a.key, valueOf(a.value)})
		}
		if r.Session != "" {
			l.TraceID, l.SpanID = traceID(r.Session), spanID(r)
		}
		logs.LogRecords = append(logs.LogRecords, l)
	}
	return LogsData{ResourceLogs: []resourceLogs{{Resource: s.resource(), ScopeLogs: []scopeLogs{logs}}}}
}
