package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sametick/sametick/services/tick/internal/client"
)

func (c *command) emit() *cobra.Command {
	var (
		pairs           []string
		attributes      string
		update, archive int64
	)
	cmd := &cobra.Command{
		Use:   "emit TYPE [NAME]",
		Short: "Create, update or archive a record, which fires its events",
		Example: `  tick emit task "Call the client" --attr priority=high
  tick emit task "Call the client today" --update 234
  tick emit task --archive 234`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			body := map[string]any{}
			if len(args) == 2 {
				body["name"] = args[1]
			}
			if attributes != "" || len(pairs) > 0 {
				if body["attributes"], err = parseAttributes(attributes, pairs); err != nil {
					return err
				}
			}
			if archive != 0 && len(body) > 0 {
				return errors.New("--archive takes no name and no attributes: tick emit TYPE --archive ID")
			}
			method, path := http.MethodPost, "/api/records/"+url.PathEscape(args[0])
			switch {
			case update != 0:
				method, path = http.MethodPatch, path+"/"+strconv.FormatInt(update, 10)
			case archive != 0:
				method, path, body = http.MethodDelete, path+"/"+strconv.FormatInt(archive, 10), nil
			case len(args) < 2:
				return errors.New("a new record needs a name: tick emit TYPE NAME")
			}
			return c.mutate(cmd, api, method, path, body)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&pairs, "attr", nil, "an attribute, key=value; values that are JSON stay JSON")
	f.StringVar(&attributes, "attributes", "", "all attributes as a JSON object")
	f.Int64Var(&update, "update", 0, "change the record of this id")
	f.Int64Var(&archive, "archive", 0, "archive the record of this id")
	cmd.MarkFlagsMutuallyExclusive("update", "archive")
	return cmd
}

func (c *command) mutate(cmd *cobra.Command, api *client.Client, method, path string, body map[string]any) error {
	var (
		record json.RawMessage
		in     any
	)
	if body != nil {
		in = body
	}
	if err := api.Do(cmd.Context(), method, path, in, &record); err != nil {
		return err
	}
	_, err := fmt.Fprintln(c.stdout, string(record))
	return err
}

// parseAttributes merges the JSON object and the pairs, which win.
func parseAttributes(object string, pairs []string) (map[string]json.RawMessage, error) {
	all := map[string]json.RawMessage{}
	if object != "" {
		if err := json.Unmarshal([]byte(object), &all); err != nil {
			return nil, fmt.Errorf("--attributes is no JSON object: %w", err)
		}
	}
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("--attr %q: write key=value", pair)
		}
		if !json.Valid([]byte(value)) {
			quoted, err := json.Marshal(value)
			if err != nil {
				return nil, fmt.Errorf("--attr %q: %w", pair, err)
			}
			value = string(quoted)
		}
		all[key] = json.RawMessage(value)
	}
	return all, nil
}
