package main

import (
	"context"
	"fmt"
	"strings"
)

// completionCommand is a function since its run needs the table it is in.
func completionCommand() command {
	return command{
		name: "completion", args: "bash|zsh|fish", short: "print a shell's completion script",
		example: "source <(guard completion bash)", run: runCompletion,
	}
}

func runCompletion(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	if err := parse(f, args); err != nil {
		return err
	}
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
	}
	words := strings.Join(names, " ")
	// Names of credentials are metadata, but reading them opens the vault, which
	// may ask: completion offers commands and files only.
	switch f.Arg(0) {
	case "bash":
		fmt.Fprintf(a.stdout, "_guard() {\n  local cur=${COMP_WORDS[COMP_CWORD]}\n  if [ \"$COMP_CWORD\" = 1 ]; then\n    COMPREPLY=($(compgen -W %q -- \"$cur\"))\n  else\n    COMPREPLY=($(compgen -f -- \"$cur\"))\n  fi\n}\ncomplete -F _guard guard\n", words)
	case "zsh":
		fmt.Fprintf(a.stdout, "#compdef guard\n_arguments '1: :(%s)' '*: :_files'\n", words)
	case "fish":
		fmt.Fprintf(a.stdout, "complete -c guard -n __fish_use_subcommand -f -a %q\n", words)
	default:
		return usagef("completion wants bash, zsh or fish")
	}
	return nil
}
