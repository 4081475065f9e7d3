package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/term"

	"guard/internal/attack"
)

// attack is `guard doctor --attack`.
func (a *app) attack(ctx context.Context, boundaries []string, name string, asJSON bool) error {
	for _, b := range boundaries {
		if attack.Tier(b) == "" {
			return usagef("--tier %q: want namespace, landlock, proxy or none", b)
		}
	}
	if name != "" && !slices.ContainsFunc(attack.Cases(), func(c attack.Case) bool { return c.Name == name }) {
		return usagef("--case %q: no case is called that (guard doctor --attack --json names them)", name)
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find guard's own program: %w", err)
	}
	o := attack.Options{Exe: exe, Boundaries: boundaries, Case: name}
	shown := !asJSON && term.IsTerminal(int(a.stderr.Fd()))
	if shown {
		o.Progress = func(b string) { fmt.Fprintf(a.stderr, "\r\x1b[Kattacking the %s tier ...", attack.Tier(b)) }
	}
	rows, err := attack.Run(ctx, o)
	if shown {
		fmt.Fprint(a.stderr, "\r\x1b[K")
	}
	if err != nil {
		return err
	}
	if asJSON {
		for _, r := range rows {
			if err := a.printJSON(r); err != nil {
				return err
			}
		}
	} else if err := a.attackTable(rows); err != nil {
		return err
	}
	if attack.Failed(rows) {
		return exitError{code: exitRefused}
	}
	return nil
}

// attackTable prints claim by tier: what is not held as case and reason below it.
func (a *app) attackTable(rows []attack.Row) error {
	on := a.colour(a.stdout)
	var tiers []string
	for _, r := range rows {
		if !slices.Contains(tiers, r.Tier) {
			tiers = append(tiers, r.Tier)
		}
	}
	table := [][]string{append([]string{"GROUP", "CASE"}, tiers...)}
	at := map[string]int{}
	count := map[string]map[string]int{}
	for _, r := range rows {
		if count[r.Tier] == nil {
			count[r.Tier] = map[string]int{}
		}
		count[r.Tier][r.Result]++
		i, ok := at[r.Case]
		if !ok {
			i = len(table)
			at[r.Case] = i
			table = append(table, []string{r.Group, r.Case})
		}
		table[i] = append(table[i], r.Result)
	}
	if err := a.table(table); err != nil {
		return err
	}
	for _, t := range tiers {
		fmt.Fprintf(a.stdout, "\n%s: %d held, %d not held, %d not tried\n", t, count[t][attack.Held], count[t][attack.NotHeld], count[t][attack.NotTried])
		for _, r := range rows {
			if r.Tier != t || r.Result == attack.Held {
				continue
			}
			colour := "33"
			if r.Result == attack.NotHeld && !r.Declared {
				colour = "31"
			}
			fmt.Fprintf(a.stdout, "  %s  %s: %s\n", paint(on, colour, fmt.Sprintf("%-9s", r.Result)), r.Case, r.Reason)
			if r.Result == attack.NotHeld {
				fmt.Fprintf(a.stdout, "             %s\n", strings.TrimSpace(r.Claim))
			}
		}
	}
	return nil
}
