package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"

	"guard/internal/scan"
	"guard/matcher/formats"
)

var scanCommand = command{
	name: "scan", args: "[PATH...|-] [--git] [FLAGS]", short: "find known values and credential formats in files, archives, a history or standard input",
	example: "guard scan .\nguard scan --git --json ~/src/project\nmake 2>&1 | guard scan -",
	exits:   ", 3 found something, 130 interrupted", run: runScan,
}

// scanMemory is from how many bytes on the heap is collected more often: with the
// engine's own memory the process stays under 200 MiB.
const scanMemory = 120 << 20

// scanFlags are the flags of guard scan.
type scanFlags struct {
	git, unreachable, json, reveal         bool
	noFormats, noValues, noIgnore          bool
	noArchives                             bool
	sarif, maxSize, maxArchive, confidence string
	rules, allow                           []string
	jobs                                   int
}

func runScan(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	var o scanFlags
	f.BoolVar(&o.git, "git", false, "look through the history of the repository at PATH: every object once")
	f.BoolVar(&o.unreachable, "unreachable", false, "with --git: also report what neither a ref nor a reflog nor the index leads to")
	f.BoolVar(&o.json, "json", false, "one JSON object a finding")
	f.StringVar(&o.sarif, "sarif", "", "write a SARIF 2.1.0 report to this file; - is standard output")
	f.StringArrayVar(&o.rules, "rules", nil, "add the formats of this TOML file, guard's or Gitleaks'")
	f.StringArrayVar(&o.allow, "allow", nil, "allow what this TOML file lists, each with a reason")
	f.StringVar(&o.confidence, "min-confidence", "medium", "report formats of at least this confidence: low, medium, high, verified")
	f.BoolVar(&o.noFormats, "no-formats", false, "look for known values only")
	f.BoolVar(&o.noValues, "no-values", false, "look for formats only; the vault is not opened")
	f.BoolVar(&o.noIgnore, "no-ignore", false, "also look into what .gitignore leaves out")
	f.StringVar(&o.maxSize, "max-size", "", "leave out files larger than this, as 10M or 1G")
	f.StringVar(&o.maxArchive, "max-archive", "4G", "read at most so much of what one archive expands to")
	f.BoolVar(&o.noArchives, "no-archives", false, "search archives as they are, without opening them")
	f.IntVar(&o.jobs, "jobs", 0, "look into so many files at a time (default: one for each processor)")
	f.BoolVar(&o.reveal, "reveal", false, "show what was found, on this terminal and after a yes")
	if err := parse(f, args); err != nil {
		return err
	}
	paths := f.Args()
	if len(paths) == 0 {
		paths = []string{"."}
	}
	if err := a.checkScan(&o, paths); err != nil {
		return err
	}
	so, err := scanOptions(&o)
	if err != nil {
		return err
	}
	allow, err := a.allowLists(o.allow, paths)
	if err != nil {
		return err
	}
	w, err := a.searchFor(&o, &so)
	if err != nil {
		return err
	}
	defer w.close()
	if o.reveal {
		if err := a.mayReveal(); err != nil {
			return err
		}
	}
	if a.getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(scanMemory) // archives in archives would let the heap grow to twice what is in use
	}
	r := &scanRun{app: a, o: &o, used: map[string]int{}, started: time.Now()}
	so.Allowed = func(f *scan.Finding) bool {
		e := scan.Allows(allow, f)
		if e == nil {
			return false
		}
		r.used[e.File]++
		return true
	}
	r.s = scan.New(so)
	return r.run(ctx, paths)
}

func (a *app) checkScan(o *scanFlags, paths []string) error {
	switch {
	case o.noFormats && o.noValues:
		return usagef("--no-formats and --no-values leave nothing to look for")
	case o.unreachable && !o.git:
		return usagef("--unreachable goes with --git")
	case o.noFormats && len(o.rules) > 0:
		return usagef("--rules adds formats, and --no-formats looks for none")
	case o.git && slices.Contains(paths, "-"):
		return usagef("--git wants the path of a repository, not -")
	case o.json && o.sarif == "-":
		return usagef("--json and --sarif - both want standard output")
	case o.reveal && (o.json || o.sarif != ""):
		return usagef("--reveal shows values on the terminal; reports never hold one")
	case o.jobs < 0:
		return usagef("--jobs %d: want a number of files", o.jobs)
	}
	return nil
}

// mayReveal asks the user, who has to sit at a terminal.
func (a *app) mayReveal() error {
	if a.getenv("GUARD_SESSION") != "" {
		return errors.New("--reveal is for the user's own terminal, not for a session")
	}
	if !term.IsTerminal(int(a.stdout.Fd())) {
		return errors.New("--reveal shows values on a terminal only, and standard output is none")
	}
	ok, err := confirm("guard: show what is found, in the clear, on this screen?")
	if err == nil && !ok {
		err = errors.New("not shown: run it again without --reveal")
	}
	return err
}

func scanOptions(o *scanFlags) (so scan.Options, err error) {
	so = scan.Options{NoIgnore: o.noIgnore, NoArchives: o.noArchives, Jobs: o.jobs, Unreachable: o.unreachable, Keep: o.reveal}
	if so.MaxSize, err = parseSize("--max-size", o.maxSize); err != nil {
		return so, err
	}
	if so.MaxArchive, err = parseSize("--max-archive", o.maxArchive); err != nil {
		return so, err
	}
	for c := formats.Low; c <= formats.Verified; c++ {
		if c.String() == o.confidence {
			so.Least = c
			return so, nil
		}
	}
	return so, usagef("--min-confidence %q: want low, medium, high or verified", o.confidence)
}

// parseSize reads a number of bytes with K, M, G or T after it; "" is 0.
func parseSize(flag, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	digits := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(s), "B"), "I")
	shift := 0
	if i := strings.IndexByte("KMGT", digits[max(0, len(digits)-1)]); len(digits) > 0 && i >= 0 {
		digits, shift = digits[:len(digits)-1], 10*(i+1)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64>>shift {
		return 0, usagef("%s %q: want a size, as 500K, 10M or 1G", flag, s)
	}
	return n << shift, nil
}

// scanRun is one run of guard scan.
type scanRun struct {
	app     *app
	o       *scanFlags
	s       *scan.Scanner
	sarif   *scan.SARIF
	used    map[string]int // findings that each allow-list allowed
	started time.Time

	mu  sync.Mutex // the terminal
	bar bool       // a progress line is shown
}

func (r *scanRun) run(ctx context.Context, paths []string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if r.o.sarif != "" {
		r.sarif = scan.NewSARIF(strings.TrimPrefix(version(), "v"))
	}
	done := make(chan error, 1)
	go func() { done <- r.look(ctx, paths) }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			r.mu.Lock()
			defer r.mu.Unlock()
			r.clear()
			return r.end(err)
		case <-tick.C:
			r.progress()
		case sig := <-signals:
			stop()
			// git is ended and its folder removed; a read that never returns is not waited for.
			select {
			case <-done:
			case <-time.After(time.Second):
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.clear()
			code := 130
			if n, ok := sig.(syscall.Signal); ok {
				code = 128 + int(n)
			}
			return exitError{code: code, err: fmt.Errorf("interrupted after %s", r.counts(r.s.Summary()))}
		}
	}
}

// look does the scan, one kind of path after the other.
func (r *scanRun) look(ctx context.Context, paths []string) error {
	for i := 0; i < len(paths); {
		var err error
		switch {
		case paths[i] == "-":
			err = r.s.Reader(ctx, "-", r.app.stdin, r.emit)
			i++
		case r.o.git:
			err = r.s.History(ctx, paths[i], r.emit)
			i++
		default:
			n := i
			for n < len(paths) && paths[n] != "-" {
				n++
			}
			err = r.s.Files(ctx, paths[i:n], r.emit)
			i = n
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *scanRun) emit(f scan.Finding) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sarif != nil {
		r.sarif.Add(&f)
		if r.o.sarif == "-" {
			return nil
		}
	}
	r.clear()
	if r.o.json {
		return r.app.printJSON(f)
	}
	_, err := io.WriteString(r.app.stdout, r.line(&f)+"\n")
	if err == nil && r.o.reveal {
		_, err = fmt.Fprintf(r.app.stdout, "    %s\n", visible(string(f.Shown())))
	}
	return err
}

// line is a finding for a person.
func (r *scanRun) line(f *scan.Finding) string {
	var b strings.Builder
	b.WriteString(visible(f.File))
	if f.In == "name" {
		b.WriteString(": in the name")
	} else {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
	}
	if f.Credential != "" {
		fmt.Fprintf(&b, ": %s (context %s, version %d, %s), %s", visible(f.Credential), visible(f.Context), f.Version, f.Class, f.Encoding)
	} else {
		fmt.Fprintf(&b, ": %s (%s, %s), %s: %s; fingerprint %s", visible(f.Rule), visible(strings.TrimSpace(f.Provider+" "+f.Kind)), f.Confidence, f.Encoding, visible(f.Why), f.Fingerprint)
	}
	if f.Commit != "" && f.In != "commit" {
		fmt.Fprintf(&b, "; commit %.12s, %.10s, %s", f.Commit, f.Date, visible(f.Author))
	}
	if f.Versions > 1 {
		fmt.Fprintf(&b, "; in %d versions", f.Versions)
	}
	if f.Reach != "" {
		fmt.Fprintf(&b, "; only in %s", map[string]string{"reflog": "a reflog", "index": "the index", "unreachable": "objects that nothing leads to"}[f.Reach])
	}
	return b.String()
}

// end writes what comes after the findings.
func (r *scanRun) end(err error) error {
	sum := r.s.Summary()
	for _, p := range sum.Problems {
		r.app.say("not, or not wholly, searched: %s: %s", visible(p.Name), visible(p.Reason))
	}
	if more := sum.Unread + sum.Unopened - int64(len(sum.Problems)); more > 0 && len(sum.Problems) > 0 {
		r.app.say("and %s more", number(more))
	}
	for _, name := range sortedKeys(r.used) {
		r.app.say("%s allowed by %s", plural(int64(r.used[name]), "finding"), name)
	}
	if sum.Elsewhere > 0 {
		r.app.say("%s only in objects that no ref, reflog or index leads to: --unreachable shows them; git gc --prune=now removes such objects", plural(sum.Elsewhere, "finding"))
	}
	if r.sarif != nil {
		if werr := r.writeSARIF(sum, err == nil); err == nil {
			err = werr
		}
	}
	if err != nil {
		return err
	}
	r.app.say("%s", r.counts(sum))
	switch {
	case sum.Findings > 0:
		return exitError{code: 3}
	case sum.Failed > 0:
		return fmt.Errorf("%s could not be searched because of a bug of guard's: this is no clean result", plural(sum.Failed, "file"))
	}
	return nil
}

func (r *scanRun) writeSARIF(sum scan.Summary, ok bool) (err error) {
	if r.o.sarif == "-" {
		return r.sarif.Write(r.app.stdout, sum.Problems, ok)
	}
	f, err := os.OpenFile(r.o.sarif, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	return cmp.Or(r.sarif.Write(f, sum.Problems, ok), f.Close())
}

// counts is the last line: what was done, and all that was not.
func (r *scanRun) counts(s scan.Summary) string {
	what := []string{plural(s.Files, "file")}
	if s.Objects > 0 {
		what = []string{plural(s.Objects, "object")}
		if s.Files > 0 {
			what = append(what, plural(s.Files, "file")+" in archives")
		}
	}
	what = append(what, size(s.Bytes), fmt.Sprintf("%.1f s", time.Since(r.started).Seconds()), plural(s.Findings, "finding"))
	for _, c := range []struct {
		n    int64
		what string
	}{
		{s.Unread, "could not be read"}, {s.Unopened, "not or not wholly opened as archives"}, {s.Oversize, "larger than --max-size"},
		{s.Ignored, "ignored by git (--no-ignore looks into them)"}, {s.Links, "links not followed"}, {s.Special, "special files skipped"},
	} {
		if c.n > 0 {
			what = append(what, fmt.Sprintf("%s %s", number(c.n), c.what))
		}
	}
	return strings.Join(what, ", ")
}

// progress shows how far the scan is, where a person looks on and after a second.
func (r *scanRun) progress() {
	if time.Since(r.started) < time.Second || !term.IsTerminal(int(r.app.stderr.Fd())) {
		return
	}
	s := r.s.Summary()
	r.mu.Lock()
	defer r.mu.Unlock()
	text := fmt.Sprintf("guard: %s, %s/s", r.counts(scan.Summary{Files: s.Files, Objects: s.Objects, Bytes: s.Bytes, Findings: s.Findings}),
		size(int64(float64(s.Bytes)/time.Since(r.started).Seconds())))
	if width, _, err := term.GetSize(int(r.app.stderr.Fd())); err == nil && len(text) >= width {
		text = text[:max(0, width-1)]
	}
	fmt.Fprintf(r.app.stderr, "\r\x1b[K%s", text)
	r.bar = true
}

// clear takes the progress line away. r.mu is held.
func (r *scanRun) clear() {
	if r.bar {
		fmt.Fprint(r.app.stderr, "\r\x1b[K")
		r.bar = false
	}
}

// allowLists reads the allow-lists of the flags and the user's own. One in a
// folder that is scanned is not used by itself, since whoever writes there could
// hide what he leaked.
func (a *app) allowLists(files, paths []string) ([]scan.Allow, error) {
	own := filepath.Join(a.configDir(), "scan-allow.toml")
	if _, err := os.Lstat(own); err == nil {
		files = append([]string{own}, files...)
	}
	var all []scan.Allow
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		entries, err := scan.LoadAllow(f, name)
		f.Close()
		if err != nil {
			return nil, err
		}
		all = append(all, entries...)
	}
	for _, p := range paths {
		in := filepath.Join(p, ".guard-scan.toml")
		if _, err := os.Lstat(in); err == nil && !slices.Contains(files, in) {
			a.say("%s is not used: who writes there could hide a leak. To use it: --allow %s", visible(in), visible(in))
		}
	}
	live, expired := scan.Live(all, time.Now())
	for _, e := range expired {
		a.say("%s (%s) expired on %s and no longer applies", e.From(), visible(e.Reason), e.Last())
	}
	return live, nil
}

// loadRules reads the formats of the flags and the user's own.
func (a *app) loadRules(files []string) (all formats.Rules, err error) {
	own := filepath.Join(a.configDir(), "rules.toml")
	if _, err := os.Lstat(own); err == nil {
		files = append([]string{own}, files...)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		rules, err := formats.LoadTOML(f, name)
		f.Close()
		if err != nil {
			return nil, err
		}
		if len(rules) == 0 {
			return nil, fmt.Errorf("%s defines no format", name)
		}
		all = append(all, rules...)
	}
	return all, nil
}
