package broker

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"guard"
)

func pass(guard.Use) guard.Decision { return guard.Decision{Action: guard.Pass, Rule: "test"} }

func TestLine(t *testing.T) {
	boom := errors.New("boom")
	for name, tt := range map[string]struct {
		change func(*Line)
		sent   bool
		rule   string
		want   []string
	}{
		"allowed":         {func(*Line) {}, true, "test", []string{"decide", "record", "value", "send", "result sent wiped"}},
		"denied":          {func(l *Line) { l.Decide = func(guard.Use) guard.Decision { return guard.Decision{Rule: "no"} } }, false, "no", []string{"refused"}},
		"no decision":     {func(l *Line) { l.Decide = nil }, false, "use-line", nil},
		"no audit":        {func(l *Line) { l.Record = func(guard.Use, guard.Decision) (Result, error) { return nil, boom } }, false, "audit", []string{"decide", "refused"}},
		"audit forgotten": {func(l *Line) { l.Record = func(guard.Use, guard.Decision) (Result, error) { return nil, nil } }, false, "audit", []string{"decide", "refused"}},
		"no value":        {func(l *Line) { l.Value = func(guard.SecretID) (guard.Secret, error) { return guard.Secret{}, boom } }, false, "vault", []string{"decide", "record", "result no value wiped"}},
		"empty value":     {func(l *Line) { l.Value = func(guard.SecretID) (guard.Secret, error) { return guard.Secret{}, nil } }, false, "vault", []string{"decide", "record", "result no value wiped"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			var kept guard.Secret
			note := func(s string) { got = append(got, s) }
			l := &Line{
				Decide: func(u guard.Use) guard.Decision { note("decide"); return pass(u) },
				Record: func(guard.Use, guard.Decision) (Result, error) {
					note("record")
					return func(outcome string, _ time.Duration, wiped bool) {
						if wiped {
							outcome += " wiped"
						}
						note("result " + outcome)
					}, nil
				},
				Value: func(guard.SecretID) (guard.Secret, error) {
					note("value")
					return guard.NewSecret([]byte("hunter2hunter2")), nil
				},
				Refused: func(guard.Use, guard.Decision) { note("refused") },
			}
			tt.change(l)
			sent := false
			d, err := l.Use(guard.Use{Credential: guard.Credential{Name: "n"}}, func(s guard.Secret) (string, error) {
				note("send")
				sent, kept = true, s
				if string(s.Reveal()) != "hunter2hunter2" {
					t.Error("send got another value")
				}
				return "sent", nil
			})
			if sent != tt.sent || (err == nil) != tt.sent || errors.Is(err, ErrRefused) == tt.sent || d.Allowed() != tt.sent || d.Rule != tt.rule {
				t.Errorf("sent %v, decision %+v, err %v", sent, d, err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("order %q, want %q", got, tt.want)
			}
			if kept.Len() != 0 {
				t.Error("the copy outlives the use")
			}
		})
	}
}

func TestLineWipesWhenSendPanicsOrFails(t *testing.T) {
	var outcome string
	var wiped bool
	l := &Line{
		Decide: pass,
		Record: func(guard.Use, guard.Decision) (Result, error) {
			return func(o string, _ time.Duration, w bool) { outcome, wiped = o, w }, nil
		},
		Value: func(guard.SecretID) (guard.Secret, error) { return guard.NewSecret([]byte("v")), nil },
	}
	func() {
		defer func() { recover() }()
		l.Use(guard.Use{}, func(guard.Secret) (string, error) { panic("x") })
	}()
	if outcome != "failed" || !wiped {
		t.Errorf("after a panic: outcome %q, wiped %v", outcome, wiped)
	}
	boom := errors.New("boom")
	if _, err := l.Use(guard.Use{}, func(guard.Secret) (string, error) { return "status 500", boom }); !errors.Is(err, boom) || errors.Is(err, ErrRefused) || outcome != "status 500" {
		t.Errorf("err %v, outcome %q", err, outcome)
	}
}

// TestUseThen: what the value is sent for is on the disk before, what came of it is
// for then to record, once and with the copy wiped, also when send panics.
func TestUseThen(t *testing.T) {
	for _, panics := range []bool{false, true} {
		var got []string
		l := &Line{
			Decide: pass,
			Record: func(guard.Use, guard.Decision) (Result, error) {
				got = append(got, "use")
				return func(outcome string, _ time.Duration, wiped bool) {
					got = append(got, outcome, map[bool]string{true: "wiped"}[wiped])
				}, nil
			},
			Value: func(guard.SecretID) (guard.Secret, error) { return guard.NewSecret([]byte("hunter2hunter2")), nil },
		}
		var copied guard.Secret
		var record func()
		func() {
			defer func() { recover() }()
			l.UseThen(guard.Use{}, func(s guard.Secret) (string, error) {
				copied = s
				got = append(got, "send")
				if panics {
					panic("send")
				}
				return "sent", nil
			}, func(f func()) {
				if record != nil {
					t.Error("there are two results")
				}
				record = f
			})
		}()
		if want := []string{"use", "send"}; !reflect.DeepEqual(got, want) || copied.Len() != 0 || record == nil {
			t.Fatalf("before the result: %q, a copy of %d bytes", got, copied.Len())
		}
		record()
		if want := []string{"use", "send", map[bool]string{false: "sent", true: "failed"}[panics], "wiped"}; !reflect.DeepEqual(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
