package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/sametick/sametick/pkg/auditlog"
	"github.com/sametick/sametick/pkg/auditlog/auditdb"
	"github.com/sametick/sametick/services/tick/internal/client"
)

func (c *command) audit() *cobra.Command {
	audit := &cobra.Command{Use: "audit", Short: "Check that nobody has rewritten the audit log"}
	audit.AddCommand(c.auditVerify(), c.auditProof())
	return audit
}

func (c *command) auditVerify() *cobra.Command {
	var keys, head, save, proof string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check the whole audit log in the database, or one entry's proof without a network",
		Long: `Check the whole audit log in the database at DATABASE_URL: every entry, every
hash and every signature; or with --proof, a file that tick audit proof has made,
one entry, with nothing but the public key, which must not come from the database.

The database alone cannot tell that it was put back to an older state, or
rewritten by who has the signing key: save a head elsewhere with --save-head, and
give it with --head the next time. Both may be the same file.`,
		Example: `  tick audit verify --head audit.head --save-head audit.head
  tick audit proof 1234 > 1234.proof && tick audit verify --proof 1234.proof`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if keys == "" {
				keys = c.env["AUDIT_PUBLIC_KEYS"]
			}
			if keys == "" {
				return errors.New("whose signature? Set AUDIT_PUBLIC_KEYS or --keys to what outbox-relay audit-key printed, or run it in a checkout where `make up` has run")
			}
			verifier, err := auditlog.NewVerifier(keys)
			if err != nil {
				return err
			}
			if proof != "" {
				return c.verifyProof(verifier, proof)
			}
			return c.verifyLog(cmd.Context(), verifier, head, save)
		},
	}
	cmd.Flags().StringVar(&keys, "keys", "", "the log's public keys, separated by commas (AUDIT_PUBLIC_KEYS)")
	cmd.Flags().StringVar(&head, "head", "", "a saved head that the log must go on from")
	cmd.Flags().StringVar(&save, "save-head", "", "where to save the newest head, when nothing is wrong")
	cmd.Flags().StringVar(&proof, "proof", "", "one entry and its proof, to be checked alone")
	cmd.MarkFlagsMutuallyExclusive("proof", "head")
	cmd.MarkFlagsMutuallyExclusive("proof", "save-head")
	return cmd
}

func (c *command) verifyProof(v *auditlog.Verifier, file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the proof: %w", err)
	}
	bundle, err := auditlog.ParseBundle(b)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	h, err := bundle.Verify(v)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	e := bundle.Entry
	_, err = fmt.Fprintf(c.stdout, "entry %d (%s of %s %d, %s) is leaf %d of %d, in the head of %s signed %s\n",
		e.ID, printable(e.Action), printable(e.AggregateType), e.AggregateID, printable(e.OccurredAt), bundle.Proof.Leaf, h.Size, printable(h.Origin), h.SealedAt.Format(time.RFC3339))
	return err
}

func (c *command) verifyLog(ctx context.Context, v *auditlog.Verifier, head, save string) error {
	saved, err := readHead(v, head)
	if err != nil {
		return err
	}
	url := c.env["DATABASE_URL"]
	if url == "" {
		return errors.New("set DATABASE_URL to the database (as a role that reads all of it, such as sametick_relay or a superuser), or --proof")
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	r, err := auditdb.Verify(ctx, conn, v, saved)
	if err != nil {
		return fmt.Errorf("verify: %w", errors.Join(err, errors.Unwrap(err)))
	}
	for _, f := range r.Findings {
		_, _ = fmt.Fprintf(c.stdout, "%-12s %s\n", f.Kind, printable(f.Text))
	}
	switch n := len(r.Findings) + r.More; {
	case n > 0:
		return fmt.Errorf("the audit log is not what was sealed: %d found, in %d leaves", n, r.Leaves)
	case r.Head == nil:
		return errors.New("nothing is sealed here: does an outbox-relay run with AUDIT_SIGNING_KEY?")
	}
	_, _ = fmt.Fprintf(c.stdout, "%d entries are as they were sealed; the newest head is of %s; %d wait to be sealed\n",
		r.Leaves, r.Head.SealedAt.Format(time.RFC3339), r.Unsealed)
	if saved == nil {
		_, _ = fmt.Fprintln(c.stderr, "Not compared with a saved head: one that was put back to an older state would look the same (--head, --save-head).")
	}
	return writeHead(save, r.Signed)
}

// readHead reads a saved head; nil for none.
func readHead(v *auditlog.Verifier, file string) (*auditlog.Head, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no %s: save a first head with --save-head alone", file)
	}
	if err != nil {
		return nil, fmt.Errorf("read the saved head: %w", err)
	}
	h, err := v.Open(string(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &h, nil
}

// writeHead writes beside and renames: the old head must survive a full disk.
func writeHead(file, signed string) error {
	if file == "" {
		return nil
	}
	half := file + ".new"
	if err := os.WriteFile(half, []byte(signed), 0o600); err != nil {
		return fmt.Errorf("save the head: %w", err)
	}
	if err := os.Rename(half, file); err != nil {
		return fmt.Errorf("save the head: %w", err)
	}
	return nil
}

func (c *command) auditProof() *cobra.Command {
	return &cobra.Command{
		Use:     "proof ID",
		Short:   "Print an entry and the proof that it is sealed, for tick audit verify --proof",
		Example: `  tick audit proof 1234 > 1234.proof`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || id < 1 {
				return fmt.Errorf("%q is no id of an audit entry", args[0])
			}
			api, err := c.api()
			if err != nil {
				return err
			}
			var bundle struct {
				Entry json.RawMessage `json:"entry"`
				Proof json.RawMessage `json:"proof"`
			}
			if err := api.Do(cmd.Context(), http.MethodGet, fmt.Sprintf("/api/audit/%d", id), nil, &bundle.Entry); err != nil {
				return err
			}
			if err := sealed(cmd.Context(), api, id, &bundle.Proof); err != nil {
				return err
			}
			b, err := json.MarshalIndent(bundle, "", "  ")
			if err != nil {
				return fmt.Errorf("encode the proof: %w", err)
			}
			_, err = fmt.Fprintln(c.stdout, string(b))
			return err
		},
	}
}

// sealed waits for the second that sealing takes, and a few more.
func sealed(ctx context.Context, api *client.Client, id int64, proof *json.RawMessage) error {
	for attempt := 1; ; attempt++ {
		err := api.Do(ctx, http.MethodGet, fmt.Sprintf("/api/audit/proofs/inclusion/%d", id), nil, proof)
		var refused *client.Error
		if !errors.As(err, &refused) || refused.Reason != "NOT_SEALED" || attempt == 5 {
			return err
		}
		t := time.NewTimer(time.Second)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}
