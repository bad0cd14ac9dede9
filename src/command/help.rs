//! Text at the end of `--help`: examples, each of which a test runs, and exit codes.

pub const UPHILL: &str = "\
Examples:
  uphill index items.parquet items.lance
  uphill init items.lance
  uphill search run.toml --out run
  uphill results run -n 10
  uphill report run -o report.html

See `uphill COMMAND --help` for the options and examples of a command.

Exit codes:
  0    success
  1    failure
  2    invalid arguments or configuration
  4    the run folder or the dataset is in use by another process
  75   the scorer is unavailable
  130  interrupted by Ctrl-C (SIGINT)
  143  interrupted by SIGTERM

After 75, 130 and 143, `uphill search --resume` continues the run and keeps all scores.";

pub const DEMO: &str = "\
Examples:
  uphill demo first";

pub const INDEX: &str = "\
Examples:
  uphill index items.parquet items.lance
  uphill index 'parts/*.parquet' parts.lance --metric cosine
  uphill index items.parquet items.lance --index ivf-flat --partitions 8 --overwrite";

pub const INIT: &str = "\
Examples:
  uphill init items.lance
  uphill init items.lance -o other.toml";

pub const SEARCH: &str = "\
Examples:
  uphill search run.toml --out run --dry-run
  uphill search run.toml --out run
  uphill search run.toml --out run --resume --set stop.evaluations=150
  uphill search run.toml --out other --set update.rule=rl --set stop.iterations=5 -q
  uphill search run.toml --out nightly --log-format json 2> nightly.jsonl";

pub const ASK: &str = "\
Examples:
  uphill ask hand.toml --out hand -o next.parquet
  uphill ask hand.toml --out hand --format csv";

pub const TELL: &str = "\
Examples:
  uphill tell hand scores.parquet
  uphill tell hand scores.parquet --set stop.evaluations=150";

pub const RESULTS: &str = "\
Examples:
  uphill results run -n 10
  uphill results run -o best.parquet
  uphill results run --format csv | head -n 5
  uphill results run --unscored -n 20";

pub const QUERIES: &str = "\
Examples:
  uphill queries run -o queries.parquet";

pub const TRAJECTORIES: &str = "\
Examples:
  uphill trajectories run -o trajectories.parquet
  uphill trajectories run --paths --format json";

pub const EVALUATE: &str = "\
Examples:
  uphill evaluate run --truth items.parquet --score-column weight
  uphill evaluate run --truth items.parquet --score-column weight --top 10 --curve -o curve.csv";

pub const EXPLAIN: &str = "\
Examples:
  uphill explain run 17
  uphill explain run 17 42 -o why.parquet";

pub const AUDIT: &str = "\
Examples:
  uphill audit run -n 50 --hit 0.9
  uphill audit run -n 100 --hit 0.9 -o audit.parquet";

pub const REPORT: &str = "\
Examples:
  uphill report run -o report.html
  uphill report run other -o both.html --truth items.parquet --score-column weight";

pub const PLOT: &str = "\
Examples:
  uphill plot run other -o curve.svg";

pub const REMOVE: &str = "\
Examples:
  uphill remove other";

pub const INSPECT: &str = "\
Examples:
  uphill inspect items.lance
  uphill inspect run --json";

pub const GENERATE: &str = "\
Examples:
  uphill generate man -o man
  uphill generate bash > uphill.bash
  uphill generate zsh -o _uphill
  uphill generate fish -o uphill.fish";
