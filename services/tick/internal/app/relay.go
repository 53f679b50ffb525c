package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
)

func (c *command) relay() *cobra.Command {
	relay := &cobra.Command{Use: "relay", Short: "Look at the outbox relay"}
	var asJSON bool
	var addr string
	show := &cobra.Command{
		Use:   "status",
		Short: "Show who leads, how far the log and the streams are, and who lags",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if addr == "" {
				addr = c.env["RELAY_ADDR"]
			}
			if addr == "" {
				return errors.New("set RELAY_ADDR (host:port of outbox-relay's gRPC) and INTERNAL_TOKEN, or run it in a checkout where `make up` has run")
			}
			s, err := relayStatus(cmd.Context(), addr, c.env["INTERNAL_TOKEN"])
			if err != nil {
				return err
			}
			if asJSON {
				_, err := fmt.Fprintln(c.stdout, protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Format(s))
				return err
			}
			return printStatus(c.stdout, s)
		},
	}
	show.Flags().BoolVar(&asJSON, "json", false, "the answer as JSON")
	show.Flags().StringVar(&addr, "addr", "", "address of outbox-relay (RELAY_ADDR)")
	relay.AddCommand(show)
	return relay
}

func relayStatus(ctx context.Context, addr, token string) (*relayv1.StatusResponse, error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("the address %q: %w", addr, err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), 10*time.Second)
	defer cancel()
	s, err := relayv1.NewRelayServiceClient(conn).Status(ctx, &relayv1.StatusRequest{})
	switch status.Code(err) {
	case codes.OK:
		return s, nil
	case codes.Unauthenticated, codes.PermissionDenied:
		return nil, errors.New("the relay does not know this INTERNAL_TOKEN: use the one it was started with")
	case codes.Unavailable:
		return nil, fmt.Errorf("nothing answers at %s: does outbox-relay run, and is RELAY_ADDR right? (%w)", addr, err)
	default:
		return nil, fmt.Errorf("relay status: %w", err)
	}
}

func printStatus(out io.Writer, s *relayv1.StatusResponse) error {
	role := "standby"
	if s.GetActive() {
		role = "active"
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "relay\t%s, version %s\n", role, s.GetVersion())
	_, _ = fmt.Fprintf(w, "postgres\tsystem %s, timeline %d\n", s.GetPostgresSystemIdentifier(), s.GetPostgresTimeline())
	_, _ = fmt.Fprintf(w, "ledger\tbatch %d, %s\n", s.GetBatch(), ago(s))
	_, _ = fmt.Fprintf(w, "waiting\t%d events without a position\n\n", s.GetUnsequenced())
	_, _ = fmt.Fprintln(w, "shard\thead\tin Redis\tbehind\tconsumers")
	for _, shard := range s.GetShards() {
		if shard.GetHead() == 0 && shard.GetStreamLast() == 0 {
			continue
		}
		consumers := ""
		for _, consumer := range shard.GetConsumers() {
			consumers += fmt.Sprintf("%s −%d  ", consumer.GetConsumer(), shard.GetHead()-consumer.GetPosition())
		}
		_, _ = fmt.Fprintf(w, "%d\t%d\t%d…%d\t%d\t%s\n", shard.GetShard(), shard.GetHead(), shard.GetStreamFirst(), shard.GetStreamLast(),
			shard.GetHead()-shard.GetStreamLast(), consumers)
	}
	return w.Flush()
}

func ago(s *relayv1.StatusResponse) string {
	if s.GetClaimedAt() == nil {
		return "none yet"
	}
	return time.Since(s.GetClaimedAt().AsTime()).Round(time.Millisecond).String() + " ago"
}
