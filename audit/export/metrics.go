package export

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"guard/audit"
)

// Counts adds up records for Prometheus and OTLP metrics. Labels have few values each:
// no path, host or session.
type Counts struct {
	started time.Time
	records uint64 // the last seq
	counts  map[series]float64
}

type series struct {
	name   string
	labels string // `a="b",c="d"`
}

// metric is what a name stands for.
var metrics = []struct{ name, help string }{
	{"guard_uses_total", "Uses of credentials that were asked for, by what was decided."},
	{"guard_use_results_total", "Outcomes of uses."},
	{"guard_use_seconds_total", "Time that uses took, in seconds."},
	{"guard_leaks_total", "Values found in what an agent output."},
	{"guard_rotation_steps_total", "Steps of rotations."},
	{"guard_refusals_total", "Connections that were refused."},
	{"guard_sessions_started_total", "Sessions that were started."},
	{"guard_sessions_ended_total", "Sessions that ended."},
	{"guard_audit_records", "Records in the log."},
}

// Add counts r.
func (c *Counts) Add(r audit.Record) {
	if c.counts == nil {
		c.counts = map[series]float64{}
		c.started = r.Time
	}
	c.records = max(c.records, r.Seq)
	count := func(name string, by float64, labels ...string) {
		var l []string
		for i := 0; i < len(labels); i += 2 {
			l = append(l, labels[i]+"="+strconv.Quote(cmp.Or(labels[i+1], "none")))
		}
		c.counts[series{name, strings.Join(l, ",")}] += by
	}
	switch r.Type {
	case audit.TypeUse:
		count("guard_uses_total", 1, "credential", r.Credential, "context", r.Context, "channel", r.Channel, "decision", r.Decision)
	case audit.TypeResult:
		count("guard_use_results_total", 1, "credential", r.Credential, "context", r.Context, "channel", r.Channel, "result", r.Result)
		count("guard_use_seconds_total", r.DurationMS/1000, "credential", r.Credential, "context", r.Context, "channel", r.Channel)
	case audit.TypeLeak:
		count("guard_leaks_total", 1, "credential", r.Credential, "context", r.Context, "channel", r.Channel, "class", r.Class, "decision", r.Decision, "reach", r.Result)
	case audit.TypeRotation:
		result := "ok"
		if r.Result != "ok" {
			result = "failed" // a sentence is no label
		}
		count("guard_rotation_steps_total", 1, "credential", r.Credential, "context", r.Context, "step", r.Step, "result", result)
	case "egress.refused":
		count("guard_refusals_total", 1, "channel", r.Channel, "rule", r.Rule)
	case audit.TypeSessionStart:
		count("guard_sessions_started_total", 1, "context", r.Context, "profile", r.Profile)
	case audit.TypeSessionEnd:
		count("guard_sessions_ended_total", 1, "context", r.Context, "profile", r.Profile)
	}
}

func (c *Counts) sorted() []series {
	return slices.SortedFunc(maps.Keys(c.counts), func(a, b series) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.labels, b.labels))
	})
}

// Prometheus writes the counts in Prometheus' text exposition format 0.0.4.
func (c *Counts) Prometheus(w io.Writer) error {
	var b strings.Builder
	all := c.sorted()
	for _, m := range metrics {
		kind := "counter"
		if m.name == "guard_audit_records" {
			kind = "gauge"
		}
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", m.name, m.help, m.name, kind)
		if kind == "gauge" {
			fmt.Fprintf(&b, "%s %d\n", m.name, c.records)
		}
		for _, s := range all {
			if s.name == m.name {
				fmt.Fprintf(&b, "%s{%s} %s\n", s.name, s.labels, strconv.FormatFloat(c.counts[s], 'g', -1, 64))
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// MetricsData is what is sent to /v1/metrics.
type MetricsData struct {
	ResourceMetrics []resourceMetrics `json:"resourceMetrics"`
}

type resourceMetrics struct {
	Resource     resource       `json:"resource"`
	ScopeMetrics []scopeMetrics `json:"scopeMetrics"`
}

type scopeMetrics struct {
	Scope   scope    `json:"scope"`
	Metrics []metric `json:"metrics"`
}

type metric struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Sum         *sum   `json:"sum,omitempty"`
	Gauge       *gauge `json:"gauge,omitempty"`
}

type sum struct {
	DataPoints             []dataPoint `json:"dataPoints"`
	AggregationTemporality int         `json:"aggregationTemporality"` // 2: cumulative
	IsMonotonic            bool        `json:"isMonotonic"`
}

type gauge struct {
	DataPoints []dataPoint `json:"dataPoints"`
}

type dataPoint struct {
	Attributes        []keyValue `json:"attributes,omitempty"`
	StartTimeUnixNano string     `json:"startTimeUnixNano"`
	TimeUnixNano      string     `json:"timeUnixNano"`
	AsDouble          float64    `json:"asDouble"`
}

// Metrics returns the counts as OTLP metrics, cumulative since the first record.
func (c *Counts) Metrics(s Source, now time.Time) MetricsData {
	out := scopeMetrics{Scope: scope{Name: "guard/audit", Version: s.Version}, Metrics: []metric{}}
	point := func(v float64) dataPoint {
		return dataPoint{StartTimeUnixNano: fmt.Sprint(c.started.UnixNano()), TimeUnixNano: fmt.Sprint(now.UnixNano()), AsDouble: v}
	}
	all := c.sorted()
	for _, m := range metrics {
		if m.name == "guard_audit_records" {
			out.Metrics = append(out.Metrics, metric{Name: m.name, Description: m.help, Gauge: &gauge{[]dataPoint{point(float64(c.records))}}})
			continue
		}
		var points []dataPoint
		for _, x := range all {
			if x.name != m.name {
				continue
			}
			p := point(c.counts[x])
			for _, l := range strings.Split(x.labels, `",`) {
				k, v, _ := strings.Cut(l, "=")
				if u, err := strconv.Unquote(strings.TrimSuffix(v, `"`) + `"`); err == nil {
					p.Attributes = append(p.Attributes, keyValue{k, valueOf(u)})
				}
			}
			points = append(points, p)
		}
		if len(points) > 0 {
			out.Metrics = append(out.Metrics, metric{Name: m.name, Description: m.help, Sum: &sum{points, 2, true}})
		}
	}
	return MetricsData{ResourceMetrics: []resourceMetrics{{Resource: s.resource(), ScopeMetrics: []scopeMetrics{out}}}}
}
