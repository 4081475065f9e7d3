//go:build !linux || !(amd64 || arm64)

package notify

import (
	"context"
	"os"
)

// Supported fails with ErrNotSupported.
func Supported() error { return ErrNotSupported }

// Server serves nothing here.
type Server struct{ counts counts }

// New fails with ErrNotSupported.
func New(*os.File, Options) (*Server, error) { return nil, ErrNotSupported }

// Serve fails with ErrNotSupported.
func (*Server) Serve(context.Context) error { return ErrNotSupported }
