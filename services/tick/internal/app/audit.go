package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/sametick/sametick/pkg/auditlog"
	"github.com/sametick/sametick/pkg/auditlog/auditdb"
)

// errTampered ends a check that has found something; what it is has been printed.
var errTampered = errors.New("the audit log is not what was sealed")

func (c *command) audit() *cobra.Command {
	audit := &cobra.Command{Use: "audit", Short: "Check that the audit log has not been rewritten"}
	audit.AddCommand(c.auditVerify(), c.auditProof())
	return audit
}

func (c *command) auditVerify() *cobra.Command {
	var keys, head, save, proof string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check the whole log against its signed heads, or one entry against a saved proof",
		Long: `Check the whole log (DATABASE_URL, any role that may read it all) against its
signed heads and, with --head, against one that was saved before: that alone
finds a database put back to an older state. --proof FILE checks one entry that
"tick audit proof" has saved, without any network. The public keys
(AUDIT_PUBLIC_KEYS, or --keys) must come from elsewhere than the database.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if keys == "" {
				keys = c.env["AUDIT_PUBLIC_KEYS"]
			}
			if keys == "" {
				return errors.New("which keys sign the heads? Set AUDIT_PUBLIC_KEYS, or --keys, to what outbox-relay audit-key printed")
			}
			v, err := auditlog.NewVerifier(keys)
			if err != nil {
				return fmt.Errorf("the public keys: %w", err)
			}
			if proof != "" {
				return c.verifyProof(v, proof)
			}
			return c.verifyLog(cmd.Context(), v, head, save)
		},
	}
	cmd.Flags().StringVar(&keys, "keys", "", "public keys of the heads, by comma (AUDIT_PUBLIC_KEYS)")
	cmd.Flags().StringVar(&head, "head", "", "file with a head that was saved before")
	cmd.Flags().StringVar(&save, "save-head", "", "file to keep the newest head in, when all is well")
	cmd.Flags().StringVar(&proof, "proof", "", "file with one entry and its proof")
	return cmd
}

func (c *command) verifyProof(v *auditlog.Verifier, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	bundle, err := auditlog.ParseBundle(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	head, err := bundle.Verify(v)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	_, err = fmt.Fprintf(c.stdout, "entry %d is leaf %d of the %d that were sealed by %s, unchanged\n",
		bundle.Entry.ID, bundle.Proof.Leaf, head.Size, head.SealedAt.Format("2006-01-02 15:04:05 MST"))
	return err
}

func (c *command) verifyLog(ctx context.Context, v *auditlog.Verifier, headFile, saveFile string) error {
	saved, err := savedHead(v, headFile)
	if err != nil {
		return err
	}
	if c.env["DATABASE_URL"] == "" {
		return errors.New("set DATABASE_URL to the database whose log shall be checked")
	}
	conn, err := pgx.Connect(ctx, c.env["DATABASE_URL"])
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	r, err := auditdb.Verify(ctx, conn, v, saved)
	if err != nil {
		return err
	}
	for _, f := range r.Findings {
		_, _ = fmt.Fprintf(c.stdout, "%-11s %s\n", f.Kind, f.Text)
	}
	if r.More > 0 {
		_, _ = fmt.Fprintf(c.stdout, "and %d more\n", r.More)
	}
	if len(r.Findings) > 0 {
		return errTampered
	}
	_, _ = fmt.Fprintf(c.stdout, "%d entries are as they were sealed, %d are not sealed yet\n", r.Leaves, r.Unsealed)
	if saveFile == "" {
		return nil
	}
	if r.Head == nil {
		return errors.New("nothing has been sealed: there is no head to save")
	}
	return os.WriteFile(saveFile, []byte(r.Signed), 0o644)
}

func savedHead(v *auditlog.Verifier, file string) (*auditlog.Head, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	head, err := v.Open(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &head, nil
}

func (c *command) auditProof() *cobra.Command {
	return &cobra.Command{
		Use:   "proof ID",
		Short: "Print one entry and the proof that it is sealed, to be checked by verify --proof",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || id < 1 {
				return fmt.Errorf("%q is no id of an audit entry", args[0])
			}
			api, err := c.api()
			if err != nil {
				return err
			}
			var bundle auditlog.Bundle
			if err := api.Do(cmd.Context(), http.MethodGet, fmt.Sprintf("/api/audit/%d", id), nil, &bundle.Entry); err != nil {
				return err
			}
			if err := api.Do(cmd.Context(), http.MethodGet, fmt.Sprintf("/api/audit/proofs/inclusion/%d", id), nil, &bundle.Proof); err != nil {
				return err
			}
			text, err := json.MarshalIndent(bundle, "", "  ")
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.stdout, string(text))
			return err
		},
	}
}
