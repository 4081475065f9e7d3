// Package attack tries to break the boundary of this machine, one case for each
// way that THREAT_MODEL.md speaks of, and says what came of it.
//
// Run makes a world that is thrown away: a home, a vault, a project, a server that
// is a credential's host and one that is the adversary's, sockets such as agents and
// keychains have, and a process of the user's. In it `guard run` starts this same
// program as the agent (Inside), which tries every case, and writes down what it
// could do. Then Run judges from outside: what the servers got, which files
// changed, what still runs.
//
// Nothing of the user's is changed: what is asked about the machine itself is
// whether it could be opened or connected to, and is closed again. No packet leaves
// the machine: addresses that are not the loopback's are tried only where the
// session has a network of its own.
//
// Goroutines: those of the servers belong to the world, which waits for them when it
// is closed; one copies a session's terminal, and the session's end waits for it.
package attack

import "context"

// Argument is the hidden command of guard that is the agent.
const Argument = "__attack"

// What came of a case.
const (
	Held     = "held"
	NotHeld  = "not held"
	NotTried = "not tried"
)

// Case is one attack.
type Case struct {
	Name  string
	Group string
	// Claim is what it attacks: the beginning of a line of THREAT_MODEL.md.
	Claim string
	// Weak says why the default tier does not hold, where THREAT_MODEL.md says so;
	// "": it is claimed to.
	Weak string

	tty   bool                      // it needs a terminal
	try   func(in *inside) got      // in the session
	judge func(w *world, g got) got // outside, after it; nil: what try says
}

// got is what came of a case, with the reason.
type got struct {
	Result string `json:"result"`
	Why    string `json:"why"`
}

// Row is a case in one tier.
type Row struct {
	Case     string `json:"case"`
	Group    string `json:"group"`
	Claim    string `json:"claim"`
	Tier     string `json:"tier"`     // contained, restricted, cooperative, none
	Result   string `json:"result"`   // Held, NotHeld, NotTried
	Reason   string `json:"reason"`   // never holds a value
	Declared bool   `json:"declared"` // THREAT_MODEL.md says of the default tier that it does not hold
}

// Options say what Run tries.
type Options struct {
	Exe        string   // guard's program
	Boundaries []string // of `guard run --boundary`; none: namespace, landlock, proxy
	Case       string   // one case alone; "": all
	Progress   func(boundary string)
}

// tiers are the boundaries' names in the papers.
var tiers = map[string]string{"namespace": "contained", "landlock": "restricted", "proxy": "cooperative", "none": "none"}

// Boundaries are what Run tries if nothing else is said, the default one first.
func Boundaries() []string { return []string{"namespace", "landlock", "proxy"} }

// Tier is what the papers call a boundary; "": there is none of that name.
func Tier(boundary string) string { return tiers[boundary] }

// Failed says whether rows of the strongest tier that could be had have a claim that
// is not held, and is not declared to be. It is so too when nothing was tried.
func Failed(rows []Row) bool {
	first := ""
	for _, r := range rows {
		if r.Result == NotTried {
			continue
		}
		if first == "" {
			first = r.Tier
		}
		if r.Tier == first && r.Result == NotHeld && !(r.Declared && r.Tier == tiers["namespace"]) {
			return true
		}
	}
	return first == ""
}

// Run tries the cases in each boundary.
func Run(ctx context.Context, o Options) ([]Row, error) { return run(ctx, o) }

// Inside is the agent of Run: args are its own of the command line. It returns the
// exit status.
func Inside(args []string) int { return agent(args) }
