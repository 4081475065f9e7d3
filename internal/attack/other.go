//go:build !linux

package attack

import (
	"context"
	"errors"
	"fmt"
)

type (
	inside struct{}
	world  struct{}
)

// Cases are none here: there is no boundary to attack.
func Cases() []Case { return nil }

func run(context.Context, Options) ([]Row, error) {
	return nil, fmt.Errorf("the attacks are on the boundary of Linux: %w", errors.ErrUnsupported)
}

func agent([]string) int { return 2 }
