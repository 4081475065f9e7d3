package policy

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits bound a grant, beyond its scope. The zero value bounds nothing.
type Limits struct {
	Count    int64         // uses; 0: any number
	Bytes    int64         // sent to the credential's hosts; 0: any number
	For      time.Duration // from the session's start
	Until    string        // "18:00" (the next after the session's start), "2026-11-25", "2026-11-25T18:00" or RFC 3339
	From, To int           // minutes of the day between which it holds, where the user is; equal: always
}

var errLimit = errors.New("want count=N, bytes=N[K|M|G], for=DURATION, until=HH:MM or a date or time, between=HH:MM-HH:MM")

var errNoStart = errors.New("it is bound to a time after the session's start, and when that was is not known")

// limitKeys are what may follow a scope, each after a comma.
var limitKeys = []string{"count=", "bytes=", "for=", "until=", "between="}

// splitLimits cuts what limits from the end of a grant. A glob may hold commas.
func splitLimits(s string) (rest string, limits []string) {
	for {
		i := strings.LastIndexByte(s, ',')
		if i < 0 {
			return s, limits
		}
		is := false
		for _, k := range limitKeys {
			is = is || strings.HasPrefix(s[i+1:], k)
		}
		if !is {
			return s, limits
		}
		limits = append([]string{s[i+1:]}, limits...)
		s = s[:i]
	}
}

func parseLimits(ss []string) (l Limits, err error) {
	seen := map[string]bool{}
	for _, s := range ss {
		k, v, _ := strings.Cut(s, "=")
		if seen[k] {
			return l, fmt.Errorf("%s is said twice", k)
		}
		seen[k] = true
		switch k {
		case "count":
			l.Count, err = strconv.ParseInt(v, 10, 64)
			if err != nil || l.Count < 1 {
				return l, errLimit
			}
		case "bytes":
			if l.Bytes, err = parseBytes(v); err != nil {
				return l, err
			}
		case "for":
			if l.For, err = time.ParseDuration(v); err != nil || l.For <= 0 {
				return l, errLimit
			}
		case "until":
			if _, err := until(v, time.Unix(0, 0), time.UTC); err != nil {
				return l, err
			}
			l.Until = v
		case "between":
			from, to, ok := strings.Cut(v, "-")
			var err1, err2 error
			l.From, err1 = minuteOf(from)
			l.To, err2 = minuteOf(to)
			if !ok || err1 != nil || err2 != nil || l.From == l.To {
				return l, errLimit
			}
		}
	}
	return l, nil
}

// parseBytes reads a number of bytes: K, M and G are 1024 of the one before.
func parseBytes(s string) (int64, error) {
	unit := int64(1)
	for i, u := range []string{"K", "M", "G"} {
		if n, ok := strings.CutSuffix(s, u); ok {
			s, unit = n, 1<<(10*(i+1))
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 || n > math.MaxInt64/unit {
		return 0, errLimit
	}
	return n * unit, nil
}

func minuteOf(s string) (int, error) {
	t, err := time.Parse("15:04", s)
	if err != nil {
		return 0, errLimit
	}
	return t.Hour()*60 + t.Minute(), nil
}

// until is the time that s means for a session that began at start.
func until(s string, start time.Time, zone *time.Location) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	for _, form := range []string{"2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(form, s, zone); err == nil {
			return t, nil
		}
	}
	m, err := minuteOf(s)
	if err != nil {
		return time.Time{}, errLimit
	}
	if start.Equal(time.Time{}) {
		return start, errNoStart
	}
	start = start.In(zone)
	t := time.Date(start.Year(), start.Month(), start.Day(), m/60, m%60, 0, 0, zone)
	if !t.After(start) {
		t = time.Date(start.Year(), start.Month(), start.Day()+1, m/60, m%60, 0, 0, zone)
	}
	return t, nil
}

// end is when a grant of a session that began at start ends; zero: never.
func (l Limits) end(start time.Time, zone *time.Location) (end time.Time, err error) {
	if l.Until != "" {
		if end, err = until(l.Until, start, zone); err != nil {
			return end, err
		}
	}
	if l.For > 0 {
		if start.Equal(time.Time{}) {
			return end, errNoStart
		}
		if t := start.Add(l.For); end.IsZero() || t.Before(end) {
			end = t
		}
	}
	return end, nil
}

func (l Limits) String() string {
	var b strings.Builder
	if l.Count > 0 {
		fmt.Fprintf(&b, ",count=%d", l.Count)
	}
	if l.Bytes > 0 {
		fmt.Fprintf(&b, ",bytes=%d", l.Bytes)
	}
	if l.For > 0 {
		fmt.Fprintf(&b, ",for=%s", l.For)
	}
	if l.Until != "" {
		fmt.Fprintf(&b, ",until=%s", l.Until)
	}
	if l.From != l.To {
		fmt.Fprintf(&b, ",between=%02d:%02d-%02d:%02d", l.From/60, l.From%60, l.To/60, l.To%60)
	}
	return b.String()
}

// Budget counts what sessions used of their grants. It may be used from many
// goroutines, and be shared by policies of one session.
type Budget struct {
	mu   sync.Mutex
	used map[string]Spent
}

// Spent is what was used of one grant, or with one credential.
type Spent struct {
	Count int64 `json:"count,omitempty"`
	Bytes int64 `json:"bytes,omitempty"`
}

// NewBudget starts from what was spent before, by the grant as it is written; nil: nothing.
func NewBudget(before map[string]Spent) *Budget {
	b := &Budget{used: map[string]Spent{}}
	for k, v := range before {
		b.used[k] = v
	}
	return b
}

// Spent is what was used so far.
func (b *Budget) Spent() map[string]Spent {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[string]Spent, len(b.used))
	for k, v := range b.used {
		out[k] = v
	}
	return out
}

// Raise takes over what others used meanwhile, where that is more.
func (b *Budget) Raise(to map[string]Spent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, v := range to {
		b.used[k] = Spent{max(v.Count, b.used[k].Count), max(v.Bytes, b.used[k].Bytes)}
	}
}

func (b *Budget) of(key string) Spent {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used[key]
}

// take counts n uses of key, if there are that many left of limit.
func (b *Budget) take(key string, limit int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.used[key]
	if limit > 0 && s.Count >= limit {
		return false
	}
	s.Count++
	b.used[key] = s
	return true
}

func (b *Budget) addBytes(key string, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.used[key]
	s.Bytes += n
	b.used[key] = s
}
