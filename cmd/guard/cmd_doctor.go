package main

import (
	"context"
	"fmt"

	"guard/bpf"
	"guard/supervisor/sandbox"
)

var doctorCommand = command{
	name: "doctor", args: "[--json] [--attack [--tier T] [--case NAME]]", short: "say what protects this machine, channel by channel, and what is missing",
	example: "guard doctor --attack", exits: "; with --attack, 1 says that a claim of the strongest tier that is to be had\n  here is not held, and is not declared to be so in THREAT_MODEL.md", run: runDoctor,
}

// channel is one row of `guard doctor`.
type channel struct {
	Channel string `json:"channel"`
	Source  string `json:"source"`
	Power   string `json:"power"` // "block", "redact", "detect", "none"
	Reason  string `json:"reason"`
}

func runDoctor(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	asJSON := f.Bool("json", false, "one JSON object")
	attacked := f.Bool("attack", false, "try to break it, on this machine and in a throw-away home: a table of claims and tiers; nothing of yours is changed and no packet leaves")
	boundaries := f.StringArray("tier", nil, "namespace, landlock, proxy or none: the boundary to attack (repeatable; default: the first three)")
	name := f.String("case", "", "attack by this case alone")
	if err := parse(f, args); err != nil {
		return err
	}
	if *attacked {
		return a.attack(ctx, *boundaries, *name, *asJSON)
	}
	if len(*boundaries) > 0 || *name != "" {
		return usagef("--tier and --case say what --attack does: give them with that")
	}
	rep := sandbox.Probe()
	inKernel := bpf.Probe()
	chans := append(append(channels(rep), writeChannels(inKernel, rep.Tier)...), monitorChannel(inKernel))
	kernel := kernelChecks(inKernel)
	if *asJSON {
		return a.printJSON(map[string]any{"tier": rep.Tier, "channels": chans, "boundary": rep.Checks, "kernel": kernel, "landlock_abi": rep.LandlockABI})
	}
	on := a.colour(a.stdout)
	fmt.Fprintf(a.stdout, "%s\n\n", tierWords(rep.Tier))
	rows := [][]string{{"CHANNEL", "SOURCE", "POWER", "WHY"}}
	for _, ch := range chans {
		rows = append(rows, []string{ch.Channel, ch.Source, ch.Power, ch.Reason})
	}
	if err := a.table(rows); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout)
	for _, ck := range append(rep.Checks, kernel...) {
		mark := paint(on, "32", "ok     ")
		if !ck.OK {
			mark = paint(on, "33", "missing")
		}
		fmt.Fprintf(a.stdout, "%s  %-28s %s\n", mark, ck.Name, ck.Reason)
	}
	return nil
}

// channels says what guard can do about each way out, in this tier.
func channels(rep sandbox.Report) []channel {
	cs := []channel{
		{"terminal", "pty", "redact", "everything the agent writes to its terminal is judged before it is shown"},
		{"pipe", "pty", "redact", "standard output and error that are no terminal go through guard"},
	}
	switch rep.Tier {
	case sandbox.Contained:
		cs = append(cs,
			channel{"http", "broker", "block", "every TCP connection is caught, TLS is ended by guard, bodies are judged before they are sent"},
			channel{"git", "broker", "block", "pushes are unpacked and judged before they are sent"},
			channel{"postgres", "broker", "block", "what clients send is judged"},
			channel{"socket", "broker", "block", "other TCP reaches listed hosts only and is judged; UDP, ICMP, raw and other families have no route"},
			channel{"dns", "broker", "block", "names are answered by guard with addresses of its own and are never sent on"})
	case sandbox.Restricted:
		cs = append(cs,
			channel{"http", "broker", "block", "TCP connects to guard's proxy only"},
			channel{"socket", "sandbox", "block", "UDP and Unix sockets are refused; TCP reaches the proxy only"})
	default:
		cs = append(cs, channel{"http", "broker", "detect", "only programs that honour proxy variables are seen"},
			channel{"socket", "", "none", "nothing keeps a program from connecting by itself"})
	}
	return append(cs, channel{"file", "files", "redact", "after the fact: files under the working folder are scanned when they settle, and redacted"})
}
