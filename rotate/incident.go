package rotate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"guard"
)

// Incident is the story of one version of one credential that leaked. It holds
// nothing secret. Version and credential make the ID, so that the same leak,
// seen by many streams or sessions, is one incident.
type Incident struct {
	ID         string    `json:"id"`
	Context    string    `json:"context"`
	Credential string    `json:"credential"`
	Version    int       `json:"version"`
	Class      string    `json:"class"`
	Escaped    bool      `json:"escaped"` // it reached a place that guard does not control
	First      time.Time `json:"first"`
	Last       time.Time `json:"last"`
	Leaks      int       `json:"leaks"` // how often it was seen
	Places     []Place   `json:"places"`
	MorePlaces int       `json:"more_places,omitempty"` // leaks at places that are not listed any more

	State  string  `json:"state"`  // "open", "closed", "by hand" (guard cannot rotate it)
	Result string  `json:"result"` // a sentence
	Report *Report `json:"rotation,omitempty"`
	Steps  []Step  `json:"steps"`
	Dead   bool    `json:"dead"` // the old value was tried and refused
	MS     float64 `json:"ms"`   // from the first leak to the end

	Uses    []Used    `json:"uses,omitempty"`    // what it was used for, from the audit log
	Copies  []string  `json:"copies,omitempty"`  // files that hold it still
	Restore []Restore `json:"restore,omitempty"` // files that were replaced by a redacted copy
	Next    []string  `json:"next_steps,omitempty"`
}

// Place is where a leak was seen.
type Place struct {
	Channel  string    `json:"channel"`
	Source   string    `json:"source"`
	Encoding string    `json:"encoding"`
	Host     string    `json:"host,omitempty"`
	Port     int       `json:"port,omitempty"`
	Path     string    `json:"path,omitempty"`
	PID      int       `json:"pid,omitempty"`
	Exe      string    `json:"exe,omitempty"`
	Offset   int64     `json:"offset"`
	Escaped  bool      `json:"escaped"`
	First    time.Time `json:"first"`
	Leaks    int       `json:"leaks"`
}

// Used is one use of the credential, from the audit log.
type Used struct {
	At      time.Time `json:"at"`
	Session string    `json:"session"`
	Action  string    `json:"action"`
	Host    string    `json:"host"`
	Path    string    `json:"path,omitempty"`
	Result  string    `json:"result,omitempty"`
}

// Restore says how to get a file back as it was.
type Restore struct {
	File     string `json:"file"`
	Original string `json:"original"` // where the original is kept
}

// maxPlaces bounds an incident, whatever an agent prints.
const maxPlaces = 64

// IncidentID names the incident of one version of a credential.
func IncidentID(id guard.SecretID) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return '-'
	}, id.Name)
	sum := sha256.Sum256([]byte(id.String()))
	return fmt.Sprintf("%.40s-%d-%s", clean, id.Version, hex.EncodeToString(sum[:4]))
}

func newIncident(id guard.SecretID, at time.Time) Incident {
	return Incident{ID: IncidentID(id), Context: id.Context, Credential: id.Name, Version: id.Version, First: at, Last: at, State: "open", Result: "being worked on"}
}

// add counts one leak.
func (i *Incident) add(l guard.Leak, escaped bool) {
	i.Leaks++
	i.Escaped = i.Escaped || escaped
	i.Class = l.Class.String()
	if l.At.After(i.Last) {
		i.Last = l.At
	}
	if l.At.Before(i.First) {
		i.First = l.At
	}
	p := Place{
		Channel: string(l.Channel), Source: l.Source, Encoding: l.Encoding, Host: l.Host, Port: l.Port, Path: l.Path,
		PID: l.PID, Exe: l.Exe, Offset: l.Offset, Escaped: escaped, First: l.At, Leaks: 1,
	}
	for k := range i.Places {
		q := &i.Places[k]
		if q.Channel == p.Channel && q.Source == p.Source && q.Encoding == p.Encoding && q.Host == p.Host && q.Port == p.Port && q.Path == p.Path && q.Escaped == p.Escaped {
			q.Leaks++
			return
		}
	}
	if len(i.Places) == maxPlaces {
		i.MorePlaces++
		return
	}
	i.Places = append(i.Places, p)
}

// clone shares nothing that add changes.
func (i Incident) clone() Incident {
	i.Places = slices.Clone(i.Places)
	i.Next = slices.Clone(i.Next)
	return i
}

// Markdown is the incident on one page. Control characters that a path or a
// host may hold are shown as '?'.
func (i Incident) Markdown() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	say("# %s, version %d, leaked\n\n", plain(i.Credential), i.Version)
	what := "contained: guard stopped every copy"
	if i.Escaped {
		what = "escaped: it reached a place that guard does not control"
	}
	dead := "no, not proven"
	if i.Dead {
		dead = "yes: it was tried and refused"
	}
	say("- incident: %s (%s)\n- context: %s\n- %s\n- old value dead: %s\n- seen: %d times, %s to %s\n- result: %s\n",
		i.ID, i.State, plain(i.Context), what, dead, i.Leaks, i.First.UTC().Format(time.RFC3339Nano), i.Last.UTC().Format(time.RFC3339Nano), plain(i.Result))
	if len(i.Places) > 0 {
		say("\n## Where\n\n| channel | where | encoding | process | times | escaped |\n|---|---|---|---|---|---|\n")
		for _, p := range i.Places {
			where := p.Path
			if p.Host != "" {
				where = fmt.Sprintf("%s:%d%s", p.Host, p.Port, p.Path)
			}
			say("| %s | %s | %s | %s (%d) | %d | %v |\n", plain(p.Channel), cell(where), plain(p.Encoding), cell(p.Exe), p.PID, p.Leaks, p.Escaped)
		}
		if i.MorePlaces > 0 {
			say("\nand %d more at other places\n", i.MorePlaces)
		}
	}
	if len(i.Steps) > 0 {
		say("\n## What was done\n\n| ms after the first leak | step | took ms | result |\n|---|---|---|---|\n")
		for _, s := range i.Steps {
			say("| %.1f | %s | %.1f | %s |\n", float64(s.At.Sub(i.First).Microseconds())/1000, s.Step, s.MS, cell(s.Result))
		}
	}
	if len(i.Uses) > 0 {
		say("\n## What it was used for\n\n| when | session | action | where | result |\n|---|---|---|---|---|\n")
		for _, u := range i.Uses {
			say("| %s | %s | %s | %s | %s |\n", u.At.UTC().Format(time.RFC3339), plain(u.Session), cell(u.Action), cell(u.Host+u.Path), cell(u.Result))
		}
	}
	list := func(title string, lines []string) {
		if len(lines) > 0 {
			say("\n## %s\n\n", title)
			for _, l := range lines {
				say("- %s\n", plain(l))
			}
		}
	}
	list("Copies that are still there", i.Copies)
	var back []string
	for _, r := range i.Restore {
		back = append(back, fmt.Sprintf("%s: the original is %s", r.File, r.Original))
	}
	list("Files that were replaced by a redacted copy", back)
	list("What to do next", i.Next)
	return b.String()
}

func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}

func cell(s string) string { return strings.ReplaceAll(plain(s), "|", "\\|") }

// Incidents is a folder with ID.json and ID.md for each incident.
type Incidents struct {
	dir string
}

// OpenIncidents makes dir if it is not there.
func OpenIncidents(dir string) (*Incidents, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open incidents: %w", err)
	}
	return &Incidents{dir: dir}, nil
}

// Save writes both files durably.
func (s *Incidents) Save(i Incident) error {
	if err := checkID(i.ID); err != nil {
		return err
	}
	b, err := json.MarshalIndent(i, "", "  ")
	if err == nil {
		err = writeFile(filepath.Join(s.dir, i.ID+".json"), append(b, '\n'))
	}
	if err == nil {
		err = writeFile(filepath.Join(s.dir, i.ID+".md"), []byte(i.Markdown()))
	}
	if err != nil {
		return fmt.Errorf("save incident %s: %w", i.ID, err)
	}
	return nil
}

// Load reads one. The error Is fs.ErrNotExist if there is none.
func (s *Incidents) Load(id string) (Incident, error) {
	if err := checkID(id); err != nil {
		return Incident{}, err
	}
	b, err := os.ReadFile(filepath.Join(s.dir, id+".json"))
	if err != nil {
		return Incident{}, fmt.Errorf("load incident %s: %w", id, err)
	}
	var i Incident
	if err := json.Unmarshal(b, &i); err != nil {
		return Incident{}, fmt.Errorf("load incident %s: the file is damaged", id)
	}
	return i, nil
}

// Open returns the incident of a version, with l counted, written down.
func (s *Incidents) Open(id guard.SecretID, l guard.Leak, escaped bool) (Incident, error) {
	if l.At.IsZero() {
		l.At = time.Now()
	}
	i, err := s.Load(IncidentID(id))
	if errors.Is(err, fs.ErrNotExist) {
		i, err = newIncident(id, l.At), nil
	}
	if err != nil {
		return Incident{}, err
	}
	i.add(l, escaped)
	return i, s.Save(i)
}

// List reads all, newest first.
func (s *Incidents) List() ([]Incident, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list incidents: %w", err)
	}
	var out []Incident
	var errs []error
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		i, err := s.Load(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, i)
	}
	slices.SortStableFunc(out, func(a, b Incident) int { return b.First.Compare(a.First) })
	return out, errors.Join(errs...)
}

func checkID(id string) error {
	if id == "" || len(id) > 100 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
		return errors.New("no such incident: an id is letters, digits, _ and - only, see `guard incident ls`")
	}
	return nil
}
