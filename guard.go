// Package guard holds the words that guard's parts share: what a credential is
// (Credential, Secret), what leaves (Origin, Leak), what is asked for (Use) and
// what is decided (Decision, Action).
//
// There are two straight lines through the program. The leak line, in package
// supervisor, judges bytes that an agent outputs. The use line, in package
// broker, serves an agent's request that needs a credential. DESIGN.md follows
// both from end to end.
//
// This package imports the standard library only, and holds no state.
package guard

import (
	"fmt"
	"strings"
	"time"
)

// Action is what is done about bytes on their way out, or about a use.
// The zero value is the strictest, so that a forgotten decision is never a
// permission.
type Action uint8

const (
	Kill   Action = iota // stop the bytes and end the agent
	Block                // stop the bytes; the agent gets an error in its protocol's words
	Redact               // let the bytes go with the secret masked
	Warn                 // let the bytes go, say so and record it
	Pass                 // let the bytes go
)

var actionNames = [...]string{Kill: "kill", Block: "block", Redact: "redact", Warn: "warn", Pass: "pass"}

func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return "kill"
}

// ParseAction reads one of kill, block, redact, warn, pass.
func ParseAction(s string) (Action, error) {
	for a, n := range actionNames {
		if n == s {
			return Action(a), nil
		}
	}
	return Kill, fmt.Errorf("unknown action %q: want one of kill, block, redact, warn, pass", s)
}

// Stops says whether a lets nothing of the judged bytes out.
func (a Action) Stops() bool { return a == Kill || a == Block }

// Stricter returns the stricter of a and b.
func Stricter(a, b Action) Action { return min(a, b) }

// Channel names a way out of the session, as the audit log and --events spell it.
type Channel string

const (
	ChannelTerminal Channel = "terminal"
	ChannelFile     Channel = "file"
	ChannelSocket   Channel = "socket"
	ChannelHTTP     Channel = "http"
	ChannelGit      Channel = "git"
	ChannelSSH      Channel = "ssh"
	ChannelPostgres Channel = "postgres"
	ChannelMySQL    Channel = "mysql"
	ChannelRedis    Channel = "redis"
	ChannelMongo    Channel = "mongodb"
	ChannelSMTP     Channel = "smtp"
	ChannelIMAP     Channel = "imap"
	ChannelAWS      Channel = "aws"
	ChannelExec     Channel = "exec"
	ChannelPipe     Channel = "pipe"
)

// SecretID names one version of one credential in one context. It is
// comparable and holds nothing secret.
type SecretID struct {
	Context string // "project" or "project/environment"; "default" where the user named none
	Name    string
	Version int // from 1
}

func (id SecretID) String() string {
	return fmt.Sprintf("%s:%s#%d", id.Context, id.Name, id.Version)
}

// Class says what a value that the scanner knows is worth.
type Class uint8

const (
	Live        Class = iota // a working credential
	Retired                  // a credential that was replaced and proven dead
	Placeholder              // stands for a credential; worth nothing outside the session
	Decoy                    // a placeholder with no credential behind it: any use is an alarm
)

func (c Class) String() string {
	return [...]string{"live", "retired", "placeholder", "decoy"}[c&3]
}

// Value is a value that the scanner looks for.
type Value struct {
	ID     SecretID
	Class  Class
	Secret Secret
}

// Credential is what guard knows about a credential except its value. All of
// it may be shown to the user; the agent sees Name, Kind, Hosts and Placeholder
// of the credentials that it may use.
type Credential struct {
	Name        string     `json:"name"`
	Context     string     `json:"context"`
	Version     int        `json:"version"`
	Kind        string     `json:"kind"`             // "github-pat", "postgres", "generic", ...
	Hosts       []string   `json:"hosts,omitempty"`  // "host", "host:port", "*.example.com"; no host: usable nowhere
	Env         string     `json:"env,omitempty"`    // variable that shows the placeholder to the agent
	In          []Position `json:"in,omitempty"`     // where in a request the value may go; none: authentication headers and Basic
	Scopes      []string   `json:"scopes,omitempty"` // what it may ever be used for; none: anything its hosts offer
	Expires     time.Time  `json:"expires,omitzero"`
	Rotate      string     `json:"rotate,omitempty"` // "provider,key=value,..."
	User        string     `json:"user,omitempty"`   // login name that goes with it, where the protocol has one
	Placeholder string     `json:"placeholder"`
	Decoy       bool       `json:"decoy,omitempty"` // there is no credential behind Placeholder: any use is an alarm
	Created     time.Time  `json:"created"`
	Updated     time.Time  `json:"updated"`
}

// ID names the version of c that is current.
func (c Credential) ID() SecretID {
	return SecretID{Context: c.Context, Name: c.Name, Version: c.Version}
}

// Position is a place in a request where a placeholder is swapped for a value.
type Position struct {
	Place string `json:"place"`          // "auth", "header", "basic", "query", "path", "form", "json" or "frame"
	Name  string `json:"name,omitempty"` // header, query or form field, or JSON path ("a.b")
}

func (p Position) String() string {
	if p.Name == "" {
		return p.Place
	}
	return p.Place + ":" + p.Name
}

// ParsePosition reads what `--in` takes: header:NAME, basic, query:NAME, path,
// form:FIELD, json:PATH, frame, and auth (every authentication header, and
// Basic).
func ParsePosition(s string) (Position, error) {
	place, name, named := strings.Cut(s, ":")
	switch place {
	case "header", "query", "form", "json":
		if !named || name == "" {
			return Position{}, fmt.Errorf("position %q needs a name: %s:NAME", s, place)
		}
	case "basic", "path", "frame", "auth":
		if named {
			return Position{}, fmt.Errorf("position %q takes no name: write %s", s, place)
		}
	default:
		return Position{}, fmt.Errorf("unknown position %q: want header:NAME, basic, query:NAME, path, form:FIELD, json:PATH, frame or auth", s)
	}
	return Position{Place: place, Name: name}, nil
}

// Session is one `guard run`.
type Session struct {
	ID      string // random, also in every audit record
	Context string
	Profile string // "interactive" or "daemon"
	Task    string
	Dir     string // working folder, canonical
	Started time.Time
}

// Origin says which way bytes are going: whose they are, and by what channel
// to where.
type Origin struct {
	Channel Channel
	Source  string // "pty", "broker", "files", "bpf"
	PID     int    // in the host's pid namespace; 0: unknown
	Exe     string
	Host    string // where they go, for network channels
	Port    int
	Method  string
	Path    string   // of the request, without query, or of the file
	Model   bool     // the destination is a model's API
	Home    []string // names of credentials that belong to Host: their placeholders are no leak there
}

// Leak is a known value found in bytes on their way out. It never holds the
// bytes.
type Leak struct {
	Origin
	Secret   SecretID
	Class    Class
	Encoding string // "raw", "base64", "hex", ...
	Offset   int64  // in the stream, bytes
	Length   int    // bytes, as encoded
	At       time.Time
	// Partial: a first part of the value was already released when the rest came.
	Partial bool
}

// Use is an agent's wish to use a credential.
type Use struct {
	Session    Session
	Credential Credential
	Channel    Channel
	Action     string // "http:read", "http:write", "repo:read", "repo:push", "db:query", ...
	Resource   string // what it acts on: a path, a repository, a database
	Host       string
	Port       int
	Method     string
	Path       string // without query
	PID        int
	Exe        string
	At         time.Time
}

// Decision is what policy answers. The zero value kills.
type Decision struct {
	Action    Action
	Rule      string   // which rule, as `guard policy explain` names it: "default-deny", "flag --allow", "guard.toml:12", ...
	Reason    string   // a sentence for a person or an agent
	NextSteps []string // what to do about it
	Secret    SecretID // the credential it is about, if one
	Record    uint64   // sequence number of the audit record, once written
}

// Allowed says whether d lets a use go on.
func (d Decision) Allowed() bool { return d.Action == Pass || d.Action == Warn }

// Step tells a Filter what comes after the bytes it is given.
type Step uint8

const (
	More  Step = iota // more may follow at once: hold back what may be the start of a secret
	Pause             // nothing came for a while: release what is held
	End               // nothing more comes
)

// Filter judges the next bytes of one stream and returns what may go out now.
// A stream's masks are as long as what they replace, so len(in)-len(out), added
// up, is what is held back. If the decision's action stops (see Action.Stops),
// nothing further of this stream may go out, and out is what came before the
// secret. out is valid until the next call. A Filter is for one goroutine.
type Filter func(p []byte, s Step) (out []byte, d Decision)

// OpenFilter starts a stream on the leak line. The supervisor makes it; main
// hands it to whoever moves bytes out of the session.
type OpenFilter func(Origin) Filter
