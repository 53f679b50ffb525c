package app

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"strings"

	"github.com/sametick/sametick/pkg/config"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/api-gateway/internal/identity"
	"github.com/sametick/sametick/services/api-gateway/internal/store"
)

// founding is what `api-gateway bootstrap` is told.
type founding struct{ org, email, password string }

// bootstrap makes an organisation, its first user and an API key, once for each email address, and prints
// the ids and the key's secret as JSON; the secret only when it is new.
func bootstrap(ctx context.Context, p Process) error {
	f, err := parseBootstrap(p)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return &usageError{err.Error()}
	}
	var c migration
	if err := config.Load(&c, p.Getenv); err != nil {
		return err
	}
	pool, err := pg.Open(ctx, c.DatabaseURL.Reveal(), pg.Options{AppName: service + " bootstrap", Pooled: c.DatabasePooled})
	if err != nil {
		return err
	}
	defer pool.Close()
	founded, err := identity.Found(ctx, store.New(pool, pool), f.org, f.email, f.password)
	if err != nil {
		return err
	}
	return json.NewEncoder(p.Out).Encode(founded)
}

func parseBootstrap(p Process) (f founding, err error) {
	flags := flag.NewFlagSet(service+" bootstrap", flag.ContinueOnError)
	flags.SetOutput(p.Err)
	flags.StringVar(&f.org, "org", "", "name of the organisation")
	flags.StringVar(&f.email, "email", "", "email address of its first user, who may do everything")
	stdin := flags.Bool("password-stdin", false, "read the user's password from the first line of standard input")
	variable := flags.String("password-env", "", "read the user's password from this environment variable")
	if err := flags.Parse(p.Args[1:]); err != nil {
		return f, err
	}
	switch {
	case flags.NArg() > 0:
		return f, errors.New("bootstrap takes flags only, see bootstrap --help")
	case f.org == "" || f.email == "":
		return f, errors.New("bootstrap needs --org and --email")
	case *stdin == (*variable != ""):
		return f, errors.New("bootstrap needs one of --password-stdin and --password-env")
	case *stdin:
		line, err := bufio.NewReader(p.In).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return f, err
		}
		f.password = strings.TrimRight(line, "\r\n")
	default:
		f.password = p.Getenv(*variable)
	}
	return f, nil
}
