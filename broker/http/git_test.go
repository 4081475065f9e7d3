package http

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"guard/broker/pack"
	"guard/internal/testutil"
	"io"
	nethttp "net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"guard"
)

// gitter runs git in a folder, through the proxy.
type gitter struct {
	t    *testing.T
	env  []string
	work string
}

func newGitter(t *testing.T, e *env) *gitter {
	return &gitter{t, []string{
		"HTTPS_PROXY=http://" + e.explicit(), "GIT_SSL_CAINFO=" + e.caFile(), "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
	}, t.TempDir()}
}

// ok runs a script that must go well, no one that must not.
func (g *gitter) ok(script string) string { g.t.Helper(); return g.sh(true, script) }
func (g *gitter) no(script string) string { g.t.Helper(); return g.sh(false, script) }

func (g *gitter) sh(want bool, script string) string {
	g.t.Helper()
	out, err := run(g.t, g.env, g.work, "sh", "-ec", script)
	if (err == nil) != want {
		g.t.Errorf("%s: %v\n%s", strings.ReplaceAll(script, canary, "[canary]"), err, out)
	}
	return out
}

const gitURL = "https://u:" + tokenPlaceholder + "@code.git.test/o/"

// git's ways to push and to fetch, each with a harmless push and one that is
// refused.
func TestGitWays(t *testing.T) {
	e := newEnv(t)
	dir := gitHost(t, e)
	g := newGitter(t, e)
	g.ok(`for r in s n; do git init -q --bare -b main --object-format=sha256 ` + dir + `/o/$r.git; git -C ` + dir + `/o/$r.git config http.receivepack true; done
git -C ` + dir + `/o/r.git config receive.advertisePushOptions true
git init -q -b main seed; cd seed; git remote add origin ` + gitURL + `r.git
for i in 1 2 3 4 5; do seq $i 3000 >f; git add f; git commit -q -m $i; done; git push -q origin main`)
	leak := `echo "k=` + canary + `" >leak; git add leak; git commit -q -m leak; `
	refused := func(what, out string) {
		t.Helper()
		if !strings.Contains(out, "remote: guard: push refused: blob ") || !strings.Contains(out, "(leak, in commit ") || !strings.Contains(out, "remote rejected") || strings.Contains(out, canary) {
			t.Errorf("%s: %s", what, strings.ReplaceAll(out, canary, "[canary]"))
		}
	}
	for i, c := range []string{
		"-c protocol.version=0", "-c protocol.version=1", "-c protocol.version=2", "-c http.postBuffer=65536", "-c http.version=HTTP/1.1", "-c http.version=HTTP/2",
		"-c http.version=HTTP/2 -c http.postBuffer=65536", "-c pack.compression=0 -c repack.usedeltabaseoffset=false",
	} {
		g.ok(fmt.Sprintf(`rm -rf w; git %s clone -q %sr.git w; cd w; for i in 1 2 3; do seq %d $((3000+i)) >f; head -c 50000 /dev/urandom >r; git add f r; git commit -q -m "$i"; done; git %[1]s push -q origin main`, c, gitURL, i))
		refused(c, g.no(fmt.Sprintf(`cd w; %s git %s push origin main`, leak, c)))
	}
	// A history of which the beginning is missing.
	g.ok("rm -rf w; git clone -q --depth 1 " + gitURL + `r.git w; cd w; test -f .git/shallow; git commit -q --allow-empty -m shallow; git push -q origin main; git fetch -q --deepen 2; git fetch -q --unshallow`)
	refused("shallow", g.no("rm -rf w; git clone -q --depth 1 "+gitURL+`r.git w; cd w; `+leak+`git push origin main`))
	// Several refs, all or none, options, tags.
	g.ok(`cd w; git reset -q --hard HEAD~1; git commit -q --allow-empty -m a; git tag -a -m tag v1; git push -q --atomic -o ci.skip -o x origin main main:b1 main:b2 v1`)
	refused("several", g.no(`cd w; git checkout -q -b bad; `+leak+`git checkout -q main; git commit -q --allow-empty -m fine; git push --atomic origin main bad`))
	if refs := g.ok("git ls-remote " + gitURL + "r.git"); strings.Contains(refs, "bad") || strings.Count(refs, "\n") != 6 {
		t.Errorf("refs: %s", refs)
	}
	// No objects to send, none to leave, another history.
	g.ok(`cd w; git push -q origin b1:refs/heads/same 2>/dev/null || git push -q origin origin/main:refs/heads/same; git push -q origin :same :b1; git push -q --force origin main~2:b2; git push -q --mirror --dry-run origin`)
	refused("forced", g.no(`cd w; git checkout -q --orphan other; git rm -q -rf . ; `+leak+`git push --force origin other:main`))
	// Large requests to fetch are sent with gzip.
	g.ok(`cd w; git checkout -qf main; for i in $(seq 80); do git commit -q --allow-empty -m $i; done; git -c protocol.version=0 fetch -q origin; git -c protocol.version=2 fetch -q origin`)
	// Names by SHA-256.
	g.ok("git init -q -b main --object-format=sha256 w2; cd w2; echo x >f; git add f; git commit -q -m x; git push -q " + gitURL + "s.git main; cd ..; git clone -q " + gitURL + "s.git w3; cmp w2/f w3/f")
	refused("SHA-256", g.no("cd w2; "+leak+"git push "+gitURL+"n.git main"))
	if got := g.ok("git ls-remote " + gitURL + "n.git"); got != "" {
		t.Errorf("arrived: %s", got)
	}
	// What a message and a name say.
	for what, script := range map[string]string{
		"commit": `git commit -q --allow-empty -m "` + canary + `"`, "author": `git commit -q --allow-empty --author "` + canary + ` <a@b>" -m x`,
		"encoding": `git -c i18n.commitEncoding=iso-8859-1 commit -q --allow-empty --author "M\374ller ` + canary + ` <a@b>" -m x`,
		"note":     `git notes add -f -m "` + canary + `"; git push -q origin refs/notes/commits && exit 0; exit 1`,
	} {
		out := g.no(`cd w; git checkout -qf main; ` + script + `; git push origin HEAD:refs/heads/x`)
		if !strings.Contains(out, "remote: guard: push refused: ") || !strings.Contains(out, "nothing was sent; ") {
			t.Errorf("%s: %s", what, strings.ReplaceAll(out, canary, "[canary]"))
		}
	}
}

// pushBody is a push of refs/heads/x with what is packed.
func pushBody(t *testing.T, p *testutil.Packfile, capabilities string) []byte {
	t.Helper()
	var b bytes.Buffer
	line := strings.Repeat("0", 40) + " " + strings.Repeat("1", 40) + " refs/heads/x\x00" + capabilities
	fmt.Fprintf(&b, "%04x%s", len(line)+4, line)
	b.WriteString("0000")
	b.Write(p.Whole())
	return b.Bytes()
}

// A push is inspected however it is wrapped, and answered so that its client knows
// that nothing went.
func TestPushRaw(t *testing.T) {
	var formed atomic.Int32
	e := newEnv(t, func(_ *env, c *Config) {
		c.Formats = func(o guard.Origin) guard.Filter {
			if !strings.HasPrefix(o.Path, "/o/r.git/git-receive-pack ") {
				t.Errorf("the path is %q", o.Path)
			}
			return func(p []byte, _ guard.Step) ([]byte, guard.Decision) {
				if bytes.Contains(p, []byte("FORMED")) {
					formed.Add(1)
					return nil, guard.Decision{Action: guard.Block, Rule: pack.FormatRule + "x", Reason: "what has a form"}
				}
				return p, guard.Decision{Action: guard.Pass}
			}
		}
	})
	var arrived atomic.Int32
	e.upstream("code.git.test", 443, nethttp.HandlerFunc(func(_ nethttp.ResponseWriter, r *nethttp.Request) {
		io.Copy(io.Discard, r.Body)
		arrived.Add(1)
	}))
	zip := func(b []byte) []byte {
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		z.Write(b)
		z.Close()
		return out.Bytes()
	}
	var fine, leaky, form, tree1 testutil.Packfile
	fine.Blob("fine")
	leaky.Blob("x " + canary)
	form.Blob("FORMED")
	// The bytes of a name in a tree are no text.
	tree1.Put(2, testutil.Tree("100644 a", []byte("FORMED..............")))
	const caps = " report-status side-band-64k"
	for what, c := range map[string]struct {
		body  []byte
		gzip  bool
		sized bool
		went  bool
		words string
	}{
		"fine":               {pushBody(t, &fine, caps), false, true, true, ""},
		"fine, chunked":      {pushBody(t, &fine, caps), false, false, true, ""},
		"fine, gzip":         {zip(pushBody(t, &fine, caps)), true, true, true, ""},
		"leaky":              {pushBody(t, &leaky, caps), false, true, false, "ng refs/heads/x refused by guard"},
		"leaky, chunked":     {pushBody(t, &leaky, caps), false, false, false, "ng refs/heads/x refused by guard"},
		"leaky, gzip":        {zip(pushBody(t, &leaky, caps)), true, false, false, "(path unknown) holds the credential known"},
		"no side band":       {pushBody(t, &leaky, " report-status"), false, true, false, "ng refs/heads/x refused by guard"},
		"no report":          {pushBody(t, &leaky, " delete-refs"), false, true, false, `"next_steps":["take it out`},
		"format":             {pushBody(t, &form, caps), false, true, false, "holds what has a form"},
		"no form in a tree":  {pushBody(t, &tree1, caps), false, true, true, ""},
		"a second pack":      {append(pushBody(t, &fine, caps), pushBody(t, &leaky, caps)...), false, true, false, "its pack could not be read"},
		"gzip in gzip":       {zip(zip(pushBody(t, &leaky, caps))), true, true, false, "could not be read"},
		"gzip and more":      {append(zip(pushBody(t, &fine, caps)), canary...), true, true, false, "policy_denied"},
		"commands only":      {[]byte("0000"), false, true, true, ""},
		"no commands":        {nil, false, true, true, ""},
		"no end of commands": {[]byte("0015push options " + canary[:4]), false, true, false, "could not be read"},
		"a name with lines":  {[]byte("006c" + strings.Repeat("0", 40) + " " + strings.Repeat("1", 40) + " a\x00 report-status0000"), false, true, false, "could not be read"},
	} {
		before := arrived.Load()
		var r io.Reader = bytes.NewReader(c.body)
		if !c.sized {
			r = struct{ io.Reader }{r}
		}
		headers := []string{"Content-Type", pushType}
		if c.gzip {
			headers = append(headers, "Content-Encoding", "gzip")
		}
		res, got := do(t, e.client("code.git.test", 443, false), "POST", "https://code.git.test/o/r.git/git-receive-pack", r, headers...)
		if went := arrived.Load() > before; went != c.went || !strings.Contains(got, c.words) || strings.Contains(got, canary) {
			t.Errorf("%s: went %v, status %d: %s", what, went, res.StatusCode, got)
		}
		if !c.went && res.Header.Get("X-Guard-Decision") != "deny" {
			t.Errorf("%s: the answer does not say who refused", what)
		}
	}
	if formed.Load() != 1 {
		t.Errorf("%d forms", formed.Load())
	}
}

// A pack over 100 MiB goes both ways, in memory that does not grow with it.
func TestGitOver100MiB(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	e := newEnv(t)
	gitHost(t, e)
	g := newGitter(t, e)
	g.ok(`git init -q -b main w; cd w; git config core.compression 0; git config pack.compression 0; git config gc.auto 0
mkdir d; for i in 1 2 3 4 5; do head -c 23068672 /dev/urandom >d/f$i; done; git add .; git commit -q -m big`)
	runtime.GC()
	var start, m runtime.MemStats
	runtime.ReadMemStats(&start)
	var peak atomic.Uint64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
				runtime.ReadMemStats(&m)
				peak.Store(max(peak.Load(), m.HeapAlloc))
			}
		}
	}()
	began := time.Now()
	g.ok(`cd w; git push -q ` + gitURL + `r.git main`)
	pushed := time.Since(began)
	g.ok(`git clone -q -c core.compression=0 ` + gitURL + `r.git copy; cmp w/d/f1 copy/d/f1; cmp w/d/f5 copy/d/f5; rm -rf copy`)
	g.ok(`cd w; dd if=/dev/urandom of=d/f6 bs=1M count=20 2>/dev/null; printf %s ` + canary + ` | dd of=d/f6 bs=1 seek=10000000 conv=notrunc 2>/dev/null; git add .; git commit -q -m leak`)
	if out := g.no(`cd w; git push ` + gitURL + `r.git main`); !strings.Contains(out, "(d/f6, in commit ") {
		t.Errorf("not refused: %s", out)
	}
	close(stop)
	<-done
	grown := int64(peak.Load()) - int64(start.HeapAlloc)
	t.Logf("pushed 110 MiB in %v, heap grew by %d MiB", pushed, grown>>20)
	if grown > 64<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}
