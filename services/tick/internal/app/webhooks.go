package app

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/fatih/color"
	"github.com/spf13/cobra"

	"github.com/sametick/sametick/services/tick/internal/listen"
	"github.com/sametick/sametick/services/tick/internal/tail"
)

func (c *command) listen() *cobra.Command {
	var (
		forward, secret string
		types           []string
	)
	cmd := &cobra.Command{
		Use:   "listen --forward URL",
		Short: "Deliver events to a local server as they happen, signed like webhooks",
		Long: `Deliver events to a local server as they happen, with the body, headers and signature of webhooks.

Your server verifies them with the secret that is printed, or with the one of --secret.
Nothing is retried; each answer is shown.`,
		Example: `  tick listen --forward http://127.0.0.1:3000/webhooks --type 'task.*'`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			f, err := listen.New(forward, secret)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(c.stdout, "secret %s\n", f.Secret); err != nil {
				return err
			}
			show := line{out: c.stdout, plain: color.NoColor}
			filter := url.Values{"event_type": types}
			if len(types) == 0 {
				filter = url.Values{}
			}
			return tail.Follow(cmd.Context(), api, filter, "", tail.Handler{
				Event: func(e tail.Event, raw string) error {
					if len(types) == 0 && isPre(e.EventType) { // as an endpoint without patterns
						return nil
					}
					begin := time.Now()
					status, err := f.Deliver(cmd.Context(), e, raw)
					if cmd.Context().Err() != nil {
						return nil
					}
					answer := fmt.Sprintf("%d in %s", status, time.Since(begin).Round(time.Millisecond))
					if err != nil {
						answer = err.Error()
					}
					_, err = fmt.Fprintf(show.out, "%s  %s#%d  %s\n", show.paint(e.EventType), e.AggregateType, e.AggregateID, printable(answer))
					return err
				},
				Notice: func(text string) { _, _ = fmt.Fprintln(c.stderr, "tick:", text) },
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&forward, "forward", "", "where to deliver to: http://127.0.0.1:3000/webhooks")
	f.StringVar(&secret, "secret", "", "the secret to sign with (default: a new one)")
	f.StringSliceVar(&types, "type", nil, "only these event types, with wildcards (default: all but pre_*)")
	_ = cmd.MarkFlagRequired("forward") // the flag is right above
	return cmd
}

func (c *command) redeliver() *cobra.Command {
	return &cobra.Command{
		Use:     "redeliver ID",
		Short:   "Send a webhook delivery again, now",
		Example: `  tick redeliver 8401`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || id < 1 {
				return fmt.Errorf("%q is no delivery's id: a number, from 1", args[0])
			}
			api, err := c.api()
			if err != nil {
				return err
			}
			var d struct {
				ID         int64  `json:"id"`
				EndpointID int64  `json:"endpoint_id"`
				EventID    int64  `json:"event_id"`
				EventType  string `json:"event_type"`
				WebhookID  string `json:"webhook_id"`
			}
			if err := api.Do(cmd.Context(), http.MethodPost, fmt.Sprintf("/api/webhooks/deliveries/%d:redeliver", id), struct{}{}, &d); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.stdout, "delivery %d: %s (event %d) to endpoint %d, %s, is due now\n", d.ID, d.EventType, d.EventID, d.EndpointID, d.WebhookID)
			return err
		},
	}
}

// isPre tells whether an event's action is a phase before the write.
func isPre(eventType string) bool {
	_, action, _ := strings.Cut(eventType, ".")
	return strings.HasPrefix(action, "pre_")
}
