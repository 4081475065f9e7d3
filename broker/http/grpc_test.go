package http

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type message = wrapperspb.BytesValue

// rpc is a service of grpc-go: what it says depends on the method.
type rpc struct{}

func (rpc) unary(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	in := new(message)
	if err := dec(in); err != nil {
		return nil, err
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if got := strings.Join(md.Get("authorization"), ","); got != "Bearer "+tokenValue {
		return nil, status.Error(codes.Unauthenticated, "the wrong token: "+fmt.Sprint(len(got)))
	}
	grpc.SetTrailer(ctx, metadata.Pairs("x-late", "done", "x-echo", tokenValue))
	if string(in.Value) == "fail" {
		return nil, status.Error(codes.FailedPrecondition, "not now, "+tokenValue)
	}
	return in, nil
}

func (rpc) bidi(_ any, s grpc.ServerStream) error {
	for n := 0; ; n++ {
		in := new(message)
		if err := s.RecvMsg(in); errors.Is(err, io.EOF) {
			s.SetTrailer(metadata.Pairs("x-count", fmt.Sprint(n)))
			return nil
		} else if err != nil {
			return err
		}
		in.Value = append([]byte("re: "), in.Value...)
		if err := s.SendMsg(in); err != nil {
			return err
		}
	}
}

// TestGRPC is grpc-go's client against grpc-go's server.
func TestGRPC(t *testing.T) {
	e := newEnv(t)
	var svc rpc
	cert := e.root.leaf(t, "api.test")
	srv := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&cert)), grpc.MaxRecvMsgSize(64<<20))
	srv.RegisterService(&grpc.ServiceDesc{ServiceName: "guard.Test", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: svc.unary}},
		Streams: []grpc.StreamDesc{{StreamName: "Bidi", Handler: svc.bidi, ClientStreams: true, ServerStreams: true}}}, svc)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); srv.Serve(l) }()
	t.Cleanup(func() { srv.Stop(); <-served })
	e.mu.Lock()
	e.at["api.test:443"] = l.Addr().(*net.TCPAddr).AddrPort()
	e.mu.Unlock()

	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(e.ca.CAPEM())
	at := e.transparent("api.test", 443)
	c, err := grpc.NewClient("passthrough:///api.test:443", grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(pool, "api.test")),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", at)
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+tokenPlaceholder)

	for name, body := range map[string][]byte{"small": []byte("hello"), "empty": nil, "16 MiB": bytes.Repeat([]byte("0123456789abcdef"), 1<<20)} {
		var trailer metadata.MD
		out := new(message)
		if err := c.Invoke(ctx, "/guard.Test/Unary", &message{Value: body}, out, grpc.Trailer(&trailer)); err != nil || !bytes.Equal(out.Value, body) {
			t.Errorf("%s: %d bytes, %v", name, len(out.Value), err)
		}
		if fmt.Sprint(trailer.Get("x-late"), trailer.Get("x-echo")) != "[done] ["+tokenPlaceholder+"]" {
			t.Errorf("%s: trailers %v", name, trailer)
		}
	}
	err = c.Invoke(ctx, "/guard.Test/Unary", &message{Value: []byte("fail")}, new(message))
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "not now, "+tokenPlaceholder {
		t.Errorf("a status in trailers only: %v", err)
	}
	// Compressed messages inside of gRPC's own frames are not looked into: they pass.
	if err := c.Invoke(ctx, "/guard.Test/Unary", &message{Value: []byte("gzip")}, new(message), grpc.UseCompressor("gzip")); err != nil {
		t.Error(err)
	}

	stream, err := c.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/guard.Test/Bidi")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 { // each answered before the next is sent
		in := new(message)
		if err := stream.SendMsg(&message{Value: fmt.Appendf(nil, "m%d", i)}); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(in); err != nil || string(in.Value) != fmt.Sprintf("re: m%d", i) {
			t.Fatalf("%q, %v", in.Value, err)
		}
	}
	stream.CloseSend()
	if err := stream.RecvMsg(new(message)); !errors.Is(err, io.EOF) || strings.Join(stream.Trailer().Get("x-count"), "") != "50" {
		t.Errorf("the end: %v, trailers %v", err, stream.Trailer())
	}

	// A secret in a message ends the call; nothing of it arrives.
	err = c.Invoke(ctx, "/guard.Test/Unary", &message{Value: []byte("so " + canary)}, new(message))
	if code := status.Code(err); code != codes.PermissionDenied && code != codes.Unavailable && code != codes.Internal && code != codes.Canceled {
		t.Errorf("a leak: %v", err)
	}
	if len(e.leaks) == 0 {
		t.Error("the leak was not seen")
	}
	// So does one in metadata, with guard's words for it.
	err = c.Invoke(metadata.AppendToOutgoingContext(t.Context(), "x-note", canary), "/guard.Test/Unary", &message{}, new(message))
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("a leak in metadata: %v", err)
	}
}
