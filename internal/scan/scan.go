package scan

import (
	"context"
	"errors"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"

	"guard"
	"guard/matcher"
	"guard/matcher/formats"
)

// Options say what to look for and where. The zero value finds nothing: give
// Values, Formats or both.
type Options struct {
	Values  *matcher.Matcher
	Formats *formats.Set
	// Known describes a value that Values has. nil: its ID alone.
	Known func(guard.SecretID) Known
	// Key gives the key for fingerprints of what Formats finds. It is called when
	// there is something, from several goroutines.
	Key func() []byte
	// Least is how sure a finding of Formats has to be.
	Least formats.Confidence
	// Allowed says that a finding is none, by the user's word.
	Allowed func(*Finding) bool

	NoIgnore   bool  // also what git ignores, and all of .git
	MaxSize    int64 // bytes; larger files are left out and counted. 0: none are
	MaxArchive int64 // bytes that one archive may expand to. 0: 4 GiB
	NoArchives bool  // archives are searched as they are, and counted
	Jobs       int   // files at a time. 0: one for each processor
	// Unreachable includes objects of a history that neither a ref nor a reflog nor
	// the index leads to.
	Unreachable bool
	// Keep puts the secret itself into findings, for whoever shows it to the user.
	Keep bool
}

// Known is what a finding says of a value.
type Known struct {
	Kind, Provider, Fingerprint string
}

// Finding is one place where a secret is. It is what `guard scan --json` prints.
type Finding struct {
	// File is the path as it was given, "a.zip!inner/path" within an archive. A
	// secret in it is masked.
	File       string `json:"file"`
	Line       int    `json:"line"`   // from 1; 0: it is in the name
	Column     int    `json:"column"` // bytes, from 1
	Credential string `json:"credential,omitempty"`
	Context    string `json:"context,omitempty"`
	Version    int    `json:"version,omitempty"`
	Class      string `json:"class,omitempty"`
	Rule       string `json:"rule,omitempty"`
	Provider   string `json:"provider,omitempty"`
	Kind       string `json:"kind,omitempty"`
	Why        string `json:"why"`
	Encoding   string `json:"encoding"`
	Confidence string `json:"confidence"` // "known", "verified", "high", "medium", "low"
	// Fingerprint ties findings of the same bytes together; keyed.
	Fingerprint string `json:"fingerprint"`
	// In is "name" for the name of a file, and of a history "commit" or "tag" for
	// what such an object says. Absent: a file's contents.
	In     string `json:"in,omitempty"`
	Commit string `json:"commit,omitempty"` // the first that has it
	Author string `json:"author,omitempty"`
	Date   string `json:"date,omitempty"` // RFC 3339
	Blob   string `json:"blob,omitempty"`
	// Versions is how many versions of the file have it, in a history.
	Versions int `json:"versions,omitempty"`
	// Reach says how a history leads to it where no ref does: "reflog", "index" or
	// "unreachable".
	Reach string `json:"reach,omitempty"`

	// Shown is the secret itself, with Options.Keep: a function, so that neither
	// formatting nor logging a finding shows it.
	Shown func() []byte `json:"-"`
}

// Summary counts what was done and what was left out. All of it may be read
// while a scan runs.
type Summary struct {
	Files, Bytes, Findings, Allowed                     int64
	Ignored, Links, Special, Oversize, Unopened, Unread int64
	Objects                                             int64
	Elsewhere                                           int64 // findings that only unreachable objects have
	Failed                                              int64 // of Unread, by a bug of guard's
	// Problems are the first of what was not or not wholly read, and why.
	Problems []Problem
}

// Problem is something that was not, or not wholly, looked into.
type Problem struct{ Name, Reason string }

const maxProblems = 20

type counters struct {
	files, bytes, findings, allowed             atomic.Int64
	ignored, links, special, oversize, unopened atomic.Int64
	objects, elsewhere, notRead, failed         atomic.Int64

	mu       sync.Mutex
	problems []Problem
}

// unread notes that name could not be read.
func (c *counters) unread(name string, err error) {
	c.notRead.Add(1)
	c.problem(name, err)
}

// closed notes an archive that was not, or not wholly, opened.
func (c *counters) closed(name string, err error) {
	c.unopened.Add(1)
	c.problem(name, err)
}

func (c *counters) problem(name string, err error) {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.problems) < maxProblems {
		c.problems = append(c.problems, Problem{name, err.Error()})
	}
}

// Scanner looks for secrets. Its methods are for one goroutine but for Summary.
type Scanner struct {
	o     Options
	count counters
	big   sync.Mutex // of whoever holds a large nested archive in memory
	spare []*looker  // one for each job
}

// New makes a Scanner. The caller closes what is in o after its last use.
func New(o Options) *Scanner {
	if o.Jobs <= 0 {
		o.Jobs = runtime.GOMAXPROCS(0)
	}
	if o.MaxArchive <= 0 {
		o.MaxArchive = 4 << 30
	}
	s := &Scanner{o: o}
	for range o.Jobs {
		s.spare = append(s.spare, &looker{s: s})
	}
	return s
}

// Summary is the state of things.
func (s *Scanner) Summary() Summary {
	c := &s.count
	c.mu.Lock()
	problems := append([]Problem(nil), c.problems...)
	c.mu.Unlock()
	for i := range problems {
		problems[i].Name = s.mask(problems[i].Name)
	}
	return Summary{
		Files: c.files.Load(), Bytes: c.bytes.Load(), Findings: c.findings.Load(), Allowed: c.allowed.Load(),
		Ignored: c.ignored.Load(), Links: c.links.Load(), Special: c.special.Load(), Oversize: c.oversize.Load(),
		Unopened: c.unopened.Load(), Unread: c.notRead.Load(), Objects: c.objects.Load(), Elsewhere: c.elsewhere.Load(), Failed: c.failed.Load(),
		Problems: problems,
	}
}

// report hands f on unless it is allowed.
func (s *Scanner) report(f Finding, emit func(Finding) error) error {
	if s.o.Allowed != nil && s.o.Allowed(&f) {
		s.count.allowed.Add(1)
		return nil
	}
	s.count.findings.Add(1)
	return emit(f)
}

// job is a file to look into, or the names in a folder.
type job struct {
	path, show string
	names      []string
	found      []Finding
	ended      chan struct{}
}

// window is how many jobs may be under way or wait for one before them.
const window = 1024

// Files looks into the files below roots and calls emit for each finding, in the
// order of the walk. An error is emit's, ctx's, or that a root is not there.
func (s *Scanner) Files(ctx context.Context, roots []string, emit func(Finding) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	todo, order := make(chan *job, 64), make(chan *job, window)
	var walked error
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	all.Go(func() {
		defer close(order)
		defer close(todo)
		w := walker{ctx: ctx, noIgnore: s.o.NoIgnore, maxSize: s.o.MaxSize, count: &s.count, send: func(j job) error {
			j.ended = make(chan struct{})
			for _, to := range []chan<- *job{order, todo} {
				select {
				case to <- &j:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		}}
		for _, root := range roots {
			if walked = w.root(root); walked != nil {
				return
			}
		}
	})
	for _, l := range s.spare {
		all.Go(func() {
			for j := range todo {
				l.job(ctx, j)
				close(j.ended)
			}
		})
	}
	for j := range order {
		select {
		case <-j.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
		for _, f := range j.found {
			if err := s.report(f, emit); err != nil {
				return err
			}
		}
	}
	return walked
}
