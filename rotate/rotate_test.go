package rotate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"guard"
	"guard/vault"
)

// issuer is a token issuer in memory. The real ones are tested in their own
// packages; here it is about order and number.
type issuer struct {
	mu     sync.Mutex
	tokens map[string]bool
	n      int
	mints  atomic.Int32
	log    []string
	hold   chan struct{} // Mint waits for it, or for ctx
	in     chan struct{} // told when Mint waits
}

func (i *issuer) Mint(ctx context.Context, j Job) (guard.Secret, error) {
	i.mints.Add(1)
	if i.hold != nil {
		select {
		case i.in <- struct{}{}:
		default:
		}
		select {
		case <-i.hold:
		case <-ctx.Done():
			return guard.Secret{}, ctx.Err()
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.n++
	v := fmt.Sprintf("token-number-%d-of-the-issuer", i.n)
	i.tokens[v] = true
	i.log = append(i.log, "mint")
	return guard.NewSecret([]byte(v)), nil
}

func (i *issuer) Verify(_ context.Context, _ Job, v guard.Secret) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.tokens[string(v.Reveal())] {
		return nil
	}
	return ErrRefused
}

func (i *issuer) Revoke(_ context.Context, j Job) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.tokens, string(j.Current.Reveal()))
	i.log = append(i.log, fmt.Sprintf("revoke emergency=%v", j.Emergency))
	return nil
}

const firstToken = "first-token-of-the-issuer"

type bench struct {
	*issuer
	dir       string
	vault     *vault.Vault
	runner    *Runner
	incidents *Incidents
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{issuer: &issuer{tokens: map[string]bool{firstToken: true}}, dir: t.TempDir()}
	v, err := vault.Create(filepath.Join(b.dir, "vault"), vault.KeyFile{Path: filepath.Join(b.dir, "key"), Create: true})
	must(t, err)
	t.Cleanup(v.Close)
	b.vault = v
	_, err = v.Set(guard.Credential{Context: "c", Name: "tok", Hosts: []string{"h.test"}, Rotate: "exec,cmd=/x"}, guard.NewSecret([]byte(firstToken)))
	must(t, err)
	_, err = v.Set(guard.Credential{Context: "c", Name: "manual", Hosts: []string{"h.test"}}, guard.NewSecret([]byte(firstToken)))
	must(t, err)
	j, err := OpenJournal(filepath.Join(b.dir, "journal"))
	must(t, err)
	b.runner = &Runner{Vault: v, Journal: j, Providers: map[string]Provider{"exec": b.issuer}, VerifyFor: 50 * time.Millisecond, DeadFor: 50 * time.Millisecond}
	b.incidents, err = OpenIncidents(filepath.Join(b.dir, "incidents"))
	must(t, err)
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bench) responder(h Hooks) *Responder {
	return NewResponder(context.Background(), b.runner, b.incidents, h)
}

var tok1 = guard.SecretID{Context: "c", Name: "tok", Version: 1}

func leak(path string) guard.Leak {
	return guard.Leak{Origin: guard.Origin{Channel: guard.ChannelFile, Source: "files", Path: path}, Secret: tok1, Class: guard.Live, Encoding: "base64", At: time.Now()}
}

func TestTenThousandLeaksAreOneRotation(t *testing.T) {
	b := newBench(t)
	var notices atomic.Int32
	r := b.responder(Hooks{Notify: func(Incident) { notices.Add(1) }})
	b.runner.Quarantine = func(guard.SecretID) { t.Error("contained leaks quarantined the credential") }
	var wg sync.WaitGroup
	for g := range 10 {
		wg.Go(func() {
			for i := range 1000 {
				r.Leak(tok1, false, leak(fmt.Sprintf("/f%d", (g*1000+i)%200)))
			}
		})
	}
	wg.Wait()
	r.Wait()
	if n := b.mints.Load(); n != 1 {
		t.Errorf("%d rotations", n)
	}
	list, err := b.incidents.List()
	must(t, err)
	if len(list) != 1 {
		t.Fatalf("%d incidents", len(list))
	}
	i := list[0]
	seen := i.MorePlaces
	for _, p := range i.Places {
		seen += p.Leaks
	}
	if i.Leaks != 10000 || seen != 10000 || len(i.Places) > maxPlaces {
		t.Errorf("%d leaks, %d at places, %d places", i.Leaks, seen, len(i.Places))
	}
	if !i.Dead || i.State != "closed" || i.Escaped || len(i.Steps) == 0 || i.Report.Mode != "graceful" {
		t.Errorf("%+v", i)
	}
	if notices.Load() != 2 {
		t.Errorf("%d notices: want one that it opened and one that it is settled", notices.Load())
	}
	for _, e := range b.log {
		if strings.Contains(e, "emergency=true") {
			t.Error("contained leaks killed sessions")
		}
	}
}

func TestContainedThenEscaped(t *testing.T) {
	b := newBench(t)
	b.hold, b.in = make(chan struct{}), make(chan struct{}, 1)
	var quarantined atomic.Int32
	b.runner.Quarantine = func(id guard.SecretID) { quarantined.Store(int32(id.Version)) }
	r := b.responder(Hooks{})
	r.Leak(tok1, false, leak("/a"))
	<-b.in // the graceful rotation is in the middle
	if quarantined.Load() != 0 {
		t.Error("quarantined although it was contained")
	}
	r.Leak(tok1, true, leak("/b"))
	if quarantined.Load() != 1 {
		t.Error("not quarantined when Leak returned")
	}
	<-b.in // and again, as an emergency
	close(b.hold)
	r.Wait()
	i, err := b.incidents.Load(IncidentID(tok1))
	must(t, err)
	if !i.Escaped || !i.Dead || i.Report.Mode != "emergency" || i.Report.From != 1 {
		t.Errorf("%+v", i)
	}
	if last := b.log[len(b.log)-1]; last != "revoke emergency=true" {
		t.Errorf("issuer's log: %v", b.log)
	}
	if len(b.tokens) != 1 {
		t.Errorf("%d tokens work", len(b.tokens))
	}
}

// Placeholders are no leak of anything; a value that is dead is recorded only; a
// credential that guard cannot rotate says what to do.
func TestWhatIsNotRotated(t *testing.T) {
	b := newBench(t)
	r := b.responder(Hooks{})
	l := leak("/a")
	l.Class = guard.Placeholder
	r.Leak(tok1, true, l)
	retired := tok1
	retired.Version = 7
	l.Class = guard.Retired
	r.Leak(retired, true, l)
	manual := guard.SecretID{Context: "c", Name: "manual", Version: 1}
	quarantined := false
	b.runner.Quarantine = func(id guard.SecretID) { quarantined = quarantined || id == manual }
	r.Leak(manual, true, leak("/a"))
	r.Wait()
	list, err := b.incidents.List()
	must(t, err)
	if len(list) != 2 || b.mints.Load() != 0 {
		t.Fatalf("%d incidents, %d rotations", len(list), b.mints.Load())
	}
	i, err := b.incidents.Load(IncidentID(manual))
	must(t, err)
	if i.State != "by hand" || i.Dead || len(i.Next) == 0 || !quarantined {
		t.Errorf("%+v; quarantined %v", i, quarantined)
	}
}

// A session that sees the leak later adds to the same incident.
func TestTheSameIncidentInAnotherSession(t *testing.T) {
	b := newBench(t)
	for range 2 {
		r := b.responder(Hooks{})
		r.Leak(tok1, false, leak("/a"))
		r.Wait()
	}
	list, err := b.incidents.List()
	must(t, err)
	if len(list) != 1 || list[0].Leaks != 2 || b.mints.Load() != 1 {
		t.Errorf("%d incidents, %d rotations", len(list), b.mints.Load())
	}
}

// What a leak says about itself is an agent's word: it must not break out of the
// page, and an id must not leave the folder.
func TestIncidentPage(t *testing.T) {
	i := newIncident(guard.SecretID{Context: "c/../x", Name: "../../etc/passwd", Version: 1}, time.Now())
	l := leak("/a|b\n# Not dead\x1b]0;x\a\u202e")
	i.add(l, true)
	page := i.Markdown()
	for line := range strings.SplitSeq(page, "\n") {
		if strings.HasPrefix(line, "# Not") || strings.ContainsAny(line, "\x1b\a\u202e") {
			t.Errorf("line %q", line)
		}
	}
	dir := t.TempDir()
	s, err := OpenIncidents(filepath.Join(dir, "incidents"))
	must(t, err)
	must(t, s.Save(i))
	n := 0
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
			if filepath.Dir(p) != filepath.Join(dir, "incidents") {
				t.Errorf("written to %s", p)
			}
		}
		return err
	}))
	if n != 2 {
		t.Errorf("%d files", n)
	}
	for _, id := range []string{"", "../x", "a/b", ".", "x.json", strings.Repeat("a", 101)} {
		if _, err := s.Load(id); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("id %q: %v", id, err)
		}
	}
	if _, err := s.Load("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestDamagedJournal(t *testing.T) {
	b := newBench(t)
	p := filepath.Join(b.dir, "journal", "00.json")
	for _, c := range []string{"", "{", `{"intent":"11"}`, `null`} {
		must(t, os.WriteFile(p, []byte(c), 0o600))
		if _, err := b.runner.Resume(context.Background()); err == nil || !strings.Contains(err.Error(), "00.json") {
			t.Errorf("%q: %v", c, err)
		}
		if _, err := b.runner.Rotate(context.Background(), "c", "tok", Graceful, ""); err == nil || b.mints.Load() != 0 {
			t.Errorf("%q: rotated although the journal cannot be read", c)
		}
	}
	// A file that a crash left half written is no journal.
	must(t, os.Remove(p))
	must(t, os.WriteFile(filepath.Join(b.dir, "journal", "00.tmp"), []byte("{"), 0o600))
	if _, err := b.runner.Rotate(context.Background(), "c", "tok", Graceful, ""); err != nil {
		t.Error(err)
	}
}

func TestCancelLeavesItOpen(t *testing.T) {
	b := newBench(t)
	b.hold, b.in = make(chan struct{}), make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { _, err := b.runner.Rotate(ctx, "c", "tok", Graceful, ""); done <- err }()
	<-b.in
	cancel()
	if err := <-done; !errors.Is(err, ErrOpen) {
		t.Fatal(err)
	}
	close(b.hold)
	// By hand again: the one that is open is finished, no second one begun.
	rep, err := b.runner.Rotate(context.Background(), "c", "tok", Graceful, "")
	if err != nil || !rep.Dead || rep.From != 1 || len(b.tokens) != 1 {
		t.Errorf("%+v, %v, %d tokens", rep, err, len(b.tokens))
	}
}

// described is a provider that says what it takes.
type described struct{ Provider }

func (described) About() About {
	return About{Name: "db", Options: []Option{{Key: "admin"}, {Key: "host"}, {Key: "cmd", Must: true}}}
}

func (described) Pin(o map[string]string) error { o["admin"] = "pinned"; return nil }

func TestSpecs(t *testing.T) {
	ps := Providers{"db": described{}, "any": nil}
	name, o, err := ps.Parse("db,cmd=/x,admin=boss,every=12h,host=h,at=start+killed")
	if err != nil || name != "db" || len(o) != 5 || o["admin"] != "boss" {
		t.Errorf("%v %v %v", name, o, err)
	}
	if got := ps.Format(name, o); got != "db,admin=boss,host=h,cmd=/x,every=12h,at=start+killed" {
		t.Errorf("back: %s", got)
	}
	if got, err := ps.Pin("db,cmd=/x"); err != nil || got != "db,admin=pinned,cmd=/x" {
		t.Errorf("pinned: %s, %v", got, err)
	}
	if _, o, err := ps.Parse("any,what=ever"); err != nil || len(o) != 1 {
		t.Error(o, err)
	}
	const typed = "hunter2-hunter2"
	for _, s := range []string{
		"", "none", typed, "db", "db,cmd=/x,", "db,cmd=/x,password=" + typed, "db,cmd=/x," + typed, "db,cmd=/x,host=", "db,cmd=/x,host=a,host=" + typed, "db,cmd=/x\n" + typed,
		"db,cmd=/x,every=" + typed, "db,cmd=/x,every=1s", "db,cmd=/x,every=-1h", "db,cmd=/x,uses=0", "db,cmd=/x,at=" + typed, "db,cmd=/x,contained=" + typed, "db,cmd=/x,overlap=1",
	} {
		if _, _, err := ps.Parse(s); err == nil || strings.Contains(err.Error(), typed) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestReportsAreScripts(t *testing.T) {
	b := newBench(t)
	rep, err := b.runner.Rotate(context.Background(), "c", "tok", Emergency, "why")
	must(t, err)
	out, err := json.Marshal(rep)
	must(t, err)
	for _, key := range []string{`"steps":[{"step":`, `"at":"`, `"ms":`, `"result":"ok"`, `"dead":true`} {
		if !strings.Contains(string(out), key) {
			t.Errorf("%s is not in %s", key, out)
		}
	}
}
