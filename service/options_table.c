/* The configuration table and the table of commands: data only. */
#include "service/options_table.h"

#define SERVE         (1u << HR_COMMAND_SERVE)
#define SCORE         (1u << HR_COMMAND_SCORE)
#define RANK          (1u << HR_COMMAND_RANK)
#define LOAD          (1u << HR_COMMAND_LOAD)
#define FEATURES_LOAD (1u << HR_COMMAND_FEATURES_LOAD)
#define FEATURES_GET  (1u << HR_COMMAND_FEATURES_GET)
#define SURVEY        (1u << HR_COMMAND_FEATURES_STATS | 1u << HR_COMMAND_FEATURES_CHECK)
#define INSPECT       (1u << HR_COMMAND_INSPECT)
#define CHECK         (1u << HR_COMMAND_EXPERIMENTS_CHECK)
#define SIMULATE      (1u << HR_COMMAND_EXPERIMENTS_SIMULATE)
#define EXPLAIN       (1u << HR_COMMAND_EXPERIMENTS_EXPLAIN)
#define ANALYZE       (1u << HR_COMMAND_EXPERIMENTS_ANALYZE)
#define EXPERIMENTS   (CHECK | SIMULATE | EXPLAIN)
#define ALL                                                                                                  \
    (SERVE | SCORE | RANK | LOAD | FEATURES_LOAD | FEATURES_GET | SURVEY | INSPECT | EXPERIMENTS | ANALYZE)

#define MEMBER(name)   .offset = offsetof(hr_options, name)
#define TEXT(v)        .type = HR_OPTION_TEXT, .value = (v)
#define ADDRESS        TEXT("HOST:PORT"), .check = hr_option_check_address
#define STORE          TEXT("URI"), .check = hr_option_check_store
#define LIST(v)        .type = HR_OPTION_LIST, .value = (v)
#define UINT32(lo, hi) .type = HR_OPTION_UINT32, .value = "N", .min = (lo), .max = (hi)
#define UINT64(lo, hi) .type = HR_OPTION_UINT64, .value = "N", .min = (lo), .max = (hi)
#define BOOL           .type = HR_OPTION_BOOL

static const char *const backends[] = {"auto", "reference", "onednn", "cuda", NULL};
static const char *const precisions[] = {"f32", "bf16", NULL};
static const char *const log_levels[] = {"debug", "info", "warn", "error", NULL};
static const char *const log_formats[] = {"text", "json", NULL};
static const char *const policies[] = {"latest", "all", "specific", NULL};
static const char *const entities[] = {"user", "item", NULL};

/* clang-format off */
const hr_option_row hr_option_rows[] = {
    /* Models. */
    {.name = "models", TEXT("ROOT"), MEMBER(models), .commands = SERVE, .required = true, .in_file = true,
     .help = "The model repository: ROOT/NAME/VERSION/ holds config.json and model.safetensors."},
    {.name = "default-model", TEXT("NAME"), MEMBER(default_model), .commands = SERVE, .in_file = true,
     .help = "The model of requests that name none: NAME, NAME@VERSION or NAME:LABEL; not needed where there is "
             "only one."},
    {.name = "version-policy", TEXT("P"), MEMBER(version_policy), .fallback = "latest", .choices = policies,
     .commands = SERVE, .in_file = true,
     .help = "Which versions are served: of each model the latest that loads, all, or the specific ones that "
             "--versions lists; besides them those that a label names."},
    {.name = "versions", LIST("NAME@VERSION"), .check = hr_option_check_version, MEMBER(versions),
     .commands = SERVE, .in_file = true,
     .help = "A version to serve with --version-policy specific; may be given again, in the file a list."},
    {.name = "repository-poll-ms", UINT32(0, 86400000), MEMBER(repository_poll_ms), .fallback = "2000",
     .commands = SERVE, .in_file = true,
     .help = "How often ROOT is looked at for new and changed versions and labels; 0 is never."},
    {.name = "model", TEXT("DIR"), MEMBER(model), .commands = SCORE | SURVEY, .required = true,
     .help = "The model's folder, which holds config.json and model.safetensors."},
    {.name = "backend", TEXT("NAME"), MEMBER(backend), .fallback = "auto", .choices = backends,
     .commands = SERVE | SCORE, .in_file = true,
     .help = "What runs the network: auto is the fastest that this build has and this machine can run."},
    {.name = "devices", TEXT("LIST"), MEMBER(devices), .commands = SERVE | SCORE, .in_file = true,
     .help = "The GPUs of the cuda backend, as in 0,1: a replica of each model on each, the threads dealt to "
             "them in turn; by default the first."},
    {.name = "precision", TEXT("P"), MEMBER(precision), .fallback = "f32", .choices = precisions,
     .commands = SERVE | SCORE, .in_file = true,
     .help = "The operands of matrix products; bf16 accumulates in f32."},
    {.name = "threads", UINT32(0, 1024), MEMBER(threads), .fallback = "0", .commands = SERVE | SCORE,
     .in_file = true, .help = "Threads that run the network; 0 is one per CPU of this process."},

    /* The feature store. */
    {.name = "store", STORE, MEMBER(store), .commands = SERVE | SCORE | FEATURES_LOAD | FEATURES_GET | SURVEY,
     .required = true, .in_file = true,
     .help = "Where the records of users and items are: lmdb:PATH, redis://[USER:PASSWORD@]HOST:PORT[/DB] or "
             "redis-cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT with ?prefix=hr&layout=packed (or hash, feast), "
             "or none: for inline features only. The password may come from HOMERANK_REDIS_PASSWORD."},
    {.name = "store", STORE, MEMBER(store), .fallback = "none:", .commands = INSPECT,
     .help = "Where the records of the data's users and items are, as for serve and score."},
    {.name = "store-connections", UINT32(1, 64), MEMBER(store_connections), .fallback = "2",
     .commands = SERVE | SCORE, .in_file = true,
     .help = "Connections to a Redis server, to each of a cluster; requests are spread over them and pipelined "
             "on each."},
    {.name = "store-connect-timeout-ms", UINT32(1, 600000), MEMBER(store_connect_timeout_ms),
     .fallback = "1000", .commands = SERVE | SCORE, .in_file = true,
     .help = "A connection to Redis that takes longer is given up and tried again."},
    {.name = "store-timeout-ms", UINT32(1, 600000), MEMBER(store_timeout_ms), .fallback = "200",
     .commands = SERVE | SCORE, .in_file = true,
     .help = "A fetch that takes longer is answered with stale records or defaults, and the response says so."},

    /* The cache of encoded records. */
    {.name = "cache-bytes", UINT64(0, 1ull << 40), MEMBER(cache_bytes), .fallback = "268435456",
     .commands = SERVE | SCORE, .in_file = true,
     .help = "Memory for stored records, encoded, so that they are not fetched and parsed again; 0 is none, else at "
             "least 1048576."},
    {.name = "cache-ttl-ms", UINT32(0, 604800000), MEMBER(cache_ttl_ms), .fallback = "60000",
     .commands = SERVE | SCORE, .in_file = true,
     .help = "A cached record is read again after so long even if the store has told of no change; 0 is never."},
    {.name = "cache-max-stale-ms", UINT32(0, 604800000), MEMBER(cache_max_stale_ms), .fallback = "60000",
     .commands = SERVE | SCORE, .in_file = true,
     .help = "So long after its time a cached record may stand in while Redis does not answer; then defaults do."},
    {.name = "cache-heartbeat-ms", UINT32(10, 600000), MEMBER(cache_heartbeat_ms), .fallback = "1000",
     .commands = SERVE | SCORE, .in_file = true,
     .help = "A connection that tells of changed records is given up, and what it vouched for with it, after such "
             "a silence."},

    /* The server. */
    {.name = "listen", ADDRESS, MEMBER(listen), .fallback = "127.0.0.1:50051", .commands = SERVE,
     .in_file = true,
     .help = "Where gRPC is served, in clear text: 0.0.0.0:50051 opens it to the network, port 0 is any free "
             "one (the log says which)."},
    {.name = "http", ADDRESS, MEMBER(http), .commands = SERVE, .in_file = true,
     .help = "Where /metrics (for Prometheus), /healthz and /readyz are served, in clear text and to anyone who can "
             "reach it; nowhere unless given. Port 0 is any free one (the log says which)."},
    {.name = "admin", ADDRESS, MEMBER(admin), .commands = SERVE, .in_file = true,
     .help = "Where homerank.v1.Admin (load, unload, label, status) is served over gRPC, in clear text and to "
             "anyone who can reach it; nowhere unless given. Port 0 is any free one (the log says which)."},
    {.name = "experiments", TEXT("FILE"), MEMBER(experiments), .commands = SERVE, .in_file = true,
     .help = "Decide by the experiments of this file, a GrowthBook SDK payload, which model, fusion and tasks rank a "
             "request; it is read again when it changes, and on SIGHUP."},
    {.name = "experiments-feature", TEXT("NAME"), MEMBER(experiments_feature), .fallback = "ranking",
     .commands = SERVE | EXPERIMENTS, .in_file = true,
     .help = "The feature of that file whose value is {\"model\", \"fusion\", \"tasks\", \"shadow\"}; NAME.model and "
             "so on give single keys."},
    {.name = "allow-forced-variations", BOOL, MEMBER(allow_forced_variations), .fallback = "false",
     .commands = SERVE, .in_file = true,
     .help = "Requests may choose their variations (forced_variations, or a query of the attribute url): for tests "
             "only, for nobody checks who asks."},
    {.name = "exposures", TEXT("FILE"), MEMBER(exposures), .commands = SERVE, .in_file = true,
     .help = "Log which user was served which variation of which experiment: a JSON line for each, appended when the "
             "answer is sent."},
    {.name = "exposures-max-bytes", UINT64(4096, 1ull << 50), MEMBER(exposures_max_bytes),
     .fallback = "1073741824", .commands = SERVE, .in_file = true,
     .help = "The exposure file is renamed, with the time behind its name, before it would become larger."},
    {.name = "exposures-max-age-s", UINT32(0, 1u << 31), MEMBER(exposures_max_age_s), .fallback = "86400",
     .commands = SERVE, .in_file = true, .help = "And after that long; 0 is never."},
    {.name = "exposures-buffer-bytes", UINT64(8192, 1ull << 32), MEMBER(exposures_buffer_bytes),
     .fallback = "16777216", .commands = SERVE, .in_file = true,
     .help = "So much may wait to be written, for the file and for the stream each; past it exposures are dropped "
             "and counted, and no answer waits."},
    {.name = "exposure-stream", TEXT("URI"), MEMBER(exposure_stream), .check = hr_option_check_store,
     .commands = SERVE, .in_file = true,
     .help = "Also add them to the stream PREFIX:exposures of a Redis: redis://[USER:PASSWORD@]HOST:PORT[/DB] with "
             "?prefix=hr."},
    {.name = "exposure-stream-maxlen", UINT64(1, 1ull << 50), MEMBER(exposure_stream_maxlen),
     .fallback = "1000000", .commands = SERVE, .in_file = true,
     .help = "The stream keeps about so many of them, the newest."},
    {.name = "pollers", UINT32(1, 256), MEMBER(pollers), .fallback = "1", .commands = SERVE, .in_file = true,
     .help = "Completion queues, each with a thread that receives calls and sends answers; one takes tens of "
             "thousands of calls a second, and several wake each other."},
    {.name = "grace-ms", UINT32(0, 3600000), MEMBER(grace_ms), .fallback = "10000", .commands = SERVE,
     .in_file = true,
     .help = "After SIGTERM or SIGINT accepted calls have this long to finish; a second signal ends the "
             "process at once."},

    /* Limits. */
    {.name = "max-message-bytes", UINT32(1024, 1u << 30), MEMBER(max_message_bytes), .fallback = "16777216",
     .commands = SERVE, .in_file = true, .help = "A request may be this large."},
    {.name = "max-call-bytes", UINT32(65536, 1u << 31), MEMBER(max_call_bytes), .fallback = "268435456",
     .commands = SERVE | SCORE, .in_file = true,
     .help = "One request's memory in the process, its features and answer included."},
    {.name = "max-open-bytes", UINT64(65536, 1ull << 40), MEMBER(max_open_bytes), .fallback = "1073741824",
     .commands = SERVE, .in_file = true,
     .help = "The memory of the requests in the server together, as they are decoded; past it RESOURCE_EXHAUSTED."},
    {.name = "max-open-calls", UINT32(1, 1000000), MEMBER(max_open_calls), .fallback = "4096",
     .commands = SERVE, .in_file = true,
     .help = "Calls and stream messages in the server at once; past it RESOURCE_EXHAUSTED."},
    {.name = "max-queued-calls", UINT32(1, 1000000), MEMBER(max_queued_calls), .fallback = "1024",
     .commands = SERVE | SCORE, .in_file = true,
     .help = "Requests accepted and not yet answered; past it RESOURCE_EXHAUSTED."},
    {.name = "max-queued-items", UINT64(1, 1000000000), MEMBER(max_queued_items), .fallback = "1000000",
     .commands = SERVE | SCORE, .in_file = true, .help = "The items of those requests together."},
    {.name = "max-queue-ms", UINT32(0, 3600000), MEMBER(max_queue_ms), .fallback = "0", .commands = SERVE,
     .in_file = true,
     .help = "A request that would wait longer for a worker, by the work ahead of it, is refused with "
             "RESOURCE_EXHAUSTED; 0 is nine times what an average one takes, which bursts may exceed."},
    {.name = "max-items", UINT32(1, 1000000), MEMBER(max_items), .fallback = "10000",
     .commands = SERVE | SCORE, .in_file = true, .help = "Candidates of one request."},
    {.name = "max-id-bytes", UINT32(1, 65536), MEMBER(max_id_bytes), .fallback = "1024",
     .commands = SERVE | SCORE, .in_file = true, .help = "The length of a user's or an item's id."},

    /* Behaviour. */
    {.name = "max-batch-rows", UINT32(1, 65536), MEMBER(max_batch_rows), .fallback = "128",
     .commands = SERVE | SCORE, .in_file = true,
     .help = "Items of one batch: requests share one up to that, and larger ones take several, on several "
             "threads."},
    {.name = "max-queue-delay-us", UINT32(0, 1000000), MEMBER(max_queue_delay_us), .fallback = "0",
     .commands = SERVE, .in_file = true,
     .help = "A free thread waits as long for a batch to fill; 0 takes what is there at once."},
    {.name = "strict-features", BOOL, MEMBER(strict_features), .fallback = "false",
     .commands = SERVE | SCORE, .in_file = true,
     .help = "A store that cannot answer makes a request UNAVAILABLE instead of scored with stale records or "
             "defaults."},

    /* Files. */
    {.name = "in", TEXT("FILE"), MEMBER(in), .commands = SCORE | FEATURES_LOAD, .required = true,
     .help = "JSON lines to read; - is stdin, .gz and .zst are decompressed."},
    {.name = "out", TEXT("FILE"), MEMBER(out), .commands = SCORE, .required = true,
     .help = "JSON lines to write; - is stdout, .gz and .zst are compressed."},
    {.name = "from-line", UINT64(1, UINT64_MAX), MEMBER(from_line), .fallback = "1",
     .commands = FEATURES_LOAD, .help = "The line to begin at: where an interrupted load said it ended."},
    {.name = "resume", TEXT("FILE"), MEMBER(resume), .commands = FEATURES_LOAD,
     .help = "Keep in FILE where to go on, and begin there if it exists; it is removed once all is loaded."},
    {.name = "csv", BOOL, MEMBER(csv), .fallback = "false", .commands = FEATURES_LOAD,
     .help = "The file is CSV: a header with id, entity and features, a record a row; docs/features.md."},
    {.name = "entity", TEXT("KIND"), MEMBER(entity), .choices = entities, .commands = FEATURES_LOAD,
     .help = "CSV: whose records all rows are, where no column says it."},
    {.name = "ttl", UINT32(0, 2147483647), MEMBER(ttl_s), .fallback = "0", .commands = FEATURES_LOAD,
     .help = "Seconds after which Redis drops the records; 0 is never."},
    {.name = "rate", UINT64(0, 1000000000), MEMBER(load_rate), .fallback = "0", .commands = FEATURES_LOAD,
     .help = "Records a second, at most, to spare a store that serves; 0 is as fast as it goes."},
    {.name = "connections", UINT32(1, 64), MEMBER(connections), .fallback = "4", .commands = FEATURES_LOAD,
     .help = "Connections to Redis, written side by side."},
    {.name = "threads", UINT32(0, 1024), MEMBER(load_threads), .fallback = "0", .commands = FEATURES_LOAD,
     .help = "Threads that read lines; 0 is one per CPU of this process."},

    {.name = "data", TEXT("FILE"), MEMBER(data), .commands = INSPECT,
     .help = "Requests as JSON lines, as for score: show how the experts and gates behave on them instead of "
             "the network."},
    {.name = "rows", UINT64(1, UINT64_MAX), MEMBER(rows), .fallback = "10000", .commands = INSPECT,
     .help = "Read the data's first N items only."},
    {.name = "html", TEXT("FILE"), MEMBER(html), .commands = INSPECT,
     .help = "Write what --data shows as a page too, with the network drawn and the gates as heat maps."},

    {.name = "sample", UINT64(0, UINT64_MAX), MEMBER(sample), .fallback = "0", .commands = SURVEY,
     .help = "Look at N users and N items, or some more; 0 is all."},

    /* One record. */
    {.name = "entity", TEXT("KIND"), MEMBER(entity), .choices = entities, .commands = FEATURES_GET,
     .required = true, .help = "Whose record."},
    {.name = "id", TEXT("ID"), MEMBER(id), .commands = FEATURES_GET, .required = true,
     .help = "The id of the user or item."},

    /* One call. */
    {.name = "target", ADDRESS, MEMBER(target), .fallback = "127.0.0.1:50051", .commands = RANK | LOAD,
     .help = "The server."},
    {.name = "user", TEXT("ID"), MEMBER(user), .commands = RANK, .required = true,
     .help = "The user to rank for."},
    {.name = "items", TEXT("A,B,C"), MEMBER(items), .commands = RANK, .required = true,
     .help = "The candidates, separated by commas."},
    {.name = "context", LIST("KEY=VALUE"), .check = hr_option_check_pair, MEMBER(context), .commands = RANK,
     .help = "A feature of the request, its value in JSON (a word that is not JSON is a string); may be "
             "given again."},
    {.name = "model", TEXT("NAME"), MEMBER(model), .commands = RANK | LOAD,
     .help = "The model: NAME, NAME@VERSION or NAME:LABEL; else the server's default."},
    {.name = "top-k", UINT32(0, 1000000), MEMBER(top_k), .fallback = "0", .commands = RANK,
     .help = "Return the best N items only; 0 is all."},
    {.name = "timeout-ms", UINT32(0, 3600000), MEMBER(timeout_ms), .fallback = "5000",
     .commands = RANK | LOAD, .help = "A call's deadline; 0 is none."},
    {.name = "json", BOOL, MEMBER(json), .fallback = "false", .commands = RANK | LOAD,
     .help = "Print one line of JSON instead of tables."},

    /* Load. */
    {.name = "rate", TEXT("R"), .check = hr_option_check_rate, MEMBER(rate), .commands = LOAD,
     .help = "Open loop: R requests a second (0.5, 200), arriving at random and waiting for no answer."},
    {.name = "phases", TEXT("R:S,..."), .check = hr_option_check_phases, MEMBER(phases), .commands = LOAD,
     .help = "Open loop, a rate after the other: 70:10,200:5,70:5 is 70 requests a second for 10 seconds, and "
             "so on; told of one by one."},
    {.name = "in-flight", UINT32(0, 100000), MEMBER(in_flight), .fallback = "0", .commands = LOAD,
     .help = "Closed loop: N requests under way at all times, to find what the server can do at most."},
    {.name = "duration-s", UINT32(1, 86400), MEMBER(duration_s), .fallback = "10", .commands = LOAD,
     .help = "Seconds of --rate or --in-flight."},
    {.name = "warmup-s", UINT32(0, 3600), MEMBER(warmup_s), .fallback = "2", .commands = LOAD,
     .help = "Seconds before, at the first rate, which are not told of."},
    {.name = "in", TEXT("FILE"), MEMBER(in), .commands = LOAD,
     .help = "Send these requests, JSON lines as for score, in turn; without it they are made up."},
    {.name = "items", TEXT("N,..."), .check = hr_option_check_sizes,
     MEMBER(items), .fallback = "500", .commands = LOAD,
     .help = "Items of a made-up request; of several numbers each is taken equally often."},
    {.name = "item-ids", TEXT("A..B"), .check = hr_option_check_range,
     MEMBER(item_ids), .fallback = "v0..v99999", .commands = LOAD,
     .help = "The items that are asked for."},
    {.name = "users", TEXT("A..B"), .check = hr_option_check_range,
     MEMBER(users), .fallback = "u0..u9999", .commands = LOAD,
     .help = "The users that ask."},
    {.name = "zipf", TEXT("S"), .check = hr_option_check_zipf,
     MEMBER(zipf), .fallback = "1", .commands = LOAD,
     .help = "How unequally made-up requests take items and users: the n-th one as often as 1/n^S; 0 is "
             "equally."},
    {.name = "requests", UINT32(1, 1000000), MEMBER(requests), .fallback = "4096", .commands = LOAD,
     .help = "Different requests, at most; they are packed beforehand and sent in turn."},
    {.name = "priority", UINT32(0, 1), MEMBER(priority), .fallback = "0", .commands = LOAD,
     .help = "1 makes all requests batch work, which yields to the others."},
    {.name = "cancel-percent", UINT32(0, 100), MEMBER(cancel_percent), .fallback = "0", .commands = LOAD,
     .help = "Of the calls, how many are cancelled under way: when the next one is sent."},
    {.name = "connections", UINT32(1, 1024), MEMBER(connections), .fallback = "1", .commands = LOAD,
     .help = "TCP connections, used in turn."},
    {.name = "threads", UINT32(1, 64), MEMBER(threads), .fallback = "1", .commands = LOAD,
     .help = "Pairs of threads that send and receive; no more than connections are used."},
    {.name = "max-in-flight", UINT32(1, 1000000), MEMBER(max_in_flight), .fallback = "10000",
     .commands = LOAD, .help = "Open loop: an arrival is not sent, and counted so, while N calls are under way."},
    {.name = "seed", UINT64(0, UINT64_MAX), MEMBER(seed), .fallback = "1", .commands = LOAD,
     .help = "Of the made-up requests and of the arrivals: the same again for the same seed."},
    {.name = "timeline", BOOL, MEMBER(timeline), .fallback = "false", .commands = LOAD,
     .help = "Print a table of every second too."},

    /* Experiments. */
    {.name = "models", TEXT("ROOT"), MEMBER(models), .commands = CHECK,
     .help = "Check the file's models, fusions and tasks against this model repository too."},
    {.name = "default-model", TEXT("NAME"), MEMBER(default_model), .commands = CHECK,
     .help = "The model of requests that name none, as for serve."},
    {.name = "users", UINT64(1, 1000000000), MEMBER(n_users), .fallback = "100000", .commands = SIMULATE,
     .help = "How many users to make up: user-0, user-1 and so on."},
    {.name = "user", TEXT("ID"), MEMBER(user), .commands = EXPLAIN, .required = true,
     .help = "The user to explain."},
    {.name = "attribute", LIST("KEY=VALUE"), .check = hr_option_check_pair, MEMBER(attributes),
     .commands = SIMULATE | EXPLAIN,
     .help = "An attribute of the request, its value in JSON (a word that is not JSON is a string); may be given "
             "again."},
    {.name = "experiment", TEXT("KEY"), MEMBER(experiment), .commands = ANALYZE,
     .help = "Of this experiment only."},
    {.name = "weights", TEXT("W,W,..."), MEMBER(weights), .check = hr_option_check_weights, .commands = ANALYZE,
     .help = "The share of users that each variation should have, for the test of the sample ratio; else equal "
             "shares."},
    {.name = "json", BOOL, MEMBER(json), .fallback = "false", .commands = ANALYZE,
     .help = "Print one object of JSON instead of tables."},

    /* Of every command. */
    {.name = "config", TEXT("FILE"), MEMBER(config), .commands = SERVE,
     .help = "A YAML file of these options, named as the flags; a flag wins over the file."},
    {.name = "log-level", TEXT("LEVEL"), MEMBER(log_level), .fallback = "info", .choices = log_levels,
     .commands = ALL, .in_file = true, .help = "What is logged to stderr."},
    {.name = "log-format", TEXT("FORM"), MEMBER(log_format), .fallback = "text", .choices = log_formats,
     .commands = ALL, .in_file = true, .help = "Log lines as text or as JSON."},
    {.name = "help", BOOL, MEMBER(help), .commands = ALL, .help = "Print this help."},
};
/* clang-format on */

const size_t hr_option_n_rows = sizeof(hr_option_rows) / sizeof(hr_option_rows[0]);
_Static_assert(sizeof(hr_option_rows) / sizeof(hr_option_rows[0]) <= HR_OPTION_ROWS_MAX, "raise the maximum");

const hr_command_row hr_command_rows[HR_COMMAND_COUNT] = {
    [HR_COMMAND_SERVE] = {"serve",
                          {NULL},
                          "Serve the models of a repository over gRPC.",
                          "homerank serve --models models --store lmdb:features.lmdb"},
    [HR_COMMAND_SCORE] = {"score",
                          {NULL},
                          "Score requests from a file of JSON lines, by the code that serves.",
                          "homerank score --model models/home/1 --store lmdb:features.lmdb "
                          "--in requests.jsonl --out answers.jsonl.zst"},
    [HR_COMMAND_RANK] = {"rank",
                         {NULL},
                         "Ask a running server to rank items for a user, and print its answer.",
                         "homerank rank --user u1 --items v1,v2,v3 --context hour=20"},
    [HR_COMMAND_LOAD] =
        {"load",
         {NULL},
         "Send a running server requests at a rate, and tell latencies, refusals and failures.",
         "homerank load --rate 200 --items 500 --item-ids v0..v99999 --users u0..u9999"},
    [HR_COMMAND_FEATURES_LOAD] = {"features load",
                                  {NULL},
                                  "Load records of users and items from JSON lines into a store.",
                                  "homerank features load --store lmdb:features.lmdb --in features.jsonl.gz"},
    [HR_COMMAND_FEATURES_GET] = {"features get",
                                 {NULL},
                                 "Print one record of a store.",
                                 "homerank features get --store lmdb:features.lmdb --entity user --id u1"},
    [HR_COMMAND_FEATURES_STATS] =
        {"features stats",
         {NULL},
         "Tell of each of a model's features how many of a store's records have it, and how large they are.",
         "homerank features stats --store lmdb:features.lmdb --model models/home/1"},
    [HR_COMMAND_FEATURES_CHECK] =
        {"features check",
         {NULL},
         "Would this store feed this model? Fails where a feature has no value that the model can use.",
         "homerank features check --store redis://127.0.0.1/0 --model models/home/1 --sample 100000"},
    [HR_COMMAND_INSPECT] =
        {"inspect",
         {"DIR"},
         "Print a model's network as a tree, its tasks, tables, parameters and FLOPs; or, with "
         "data, whether its experts and gates are healthy.",
         "homerank inspect models/home/1 --data requests.jsonl "
         "--store lmdb:features.lmdb --html home.html"},
    [HR_COMMAND_EXPERIMENTS_CHECK] = {"experiments check",
                                      {"FILE"},
                                      "Check an experiments file, and print what it does to traffic.",
                                      "homerank experiments check experiments.json --models models"},
    [HR_COMMAND_EXPERIMENTS_SIMULATE] =
        {"experiments simulate",
         {"FILE"},
         "Decide for made-up users, and compare how many are in each variation with the file's shares.",
         "homerank experiments simulate experiments.json --users 1000000 --attribute country=de"},
    [HR_COMMAND_EXPERIMENTS_EXPLAIN] =
        {"experiments explain",
         {"FILE"},
         "Explain rule by rule why a user gets the model, fusion and tasks that experiments decide.",
         "homerank experiments explain experiments.json --user u1 --attribute country=de"},
    [HR_COMMAND_EXPERIMENTS_ANALYZE] = {"experiments analyze",
                                        {"EXPOSURES", "OUTCOMES"},
                                        "Compare an experiment's variations by what their users did: means "
                                        "and AUC with 95 % intervals by user.",
                                        "homerank experiments analyze exposures.jsonl outcomes.jsonl.gz"},
};
