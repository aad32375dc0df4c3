// make_goldens: golden log-probabilities from llama.cpp, for tests of an independent
// implementation.
//
//     make_goldens MODEL.gguf WORK.json OUT.json [kv=f16|f32] [fa=on|off] [decode=batch|single]
//
// WORK.json (written by make_goldens.py) has three lists: "prompts" and "greedy" of {"text", ...}
// and "tokenize" of {"text", "parse_special"}. OUT.json is WORK.json with what llama.cpp says
// added: "ids" everywhere, "top" and "next" for the prompts, "out", "logprob" and "margin" for
// greedy. The options after OUT.json exist to measure how far llama.cpp is from itself (README.md).
//
// Why every batch has at least ROWS_MIN rows: ggml's CPU attention has two forms. Below 64 query
// rows it rounds queries to f16 and sums values in f16; from 64 rows on it keeps f32 everywhere but
// in the stored K and V. Only the second is what we want to be compared with, so that short prompts
// are padded behind their end; attention is causal, the padding changes no row before it.
#include "llama.h"
#include "nlohmann/json.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

using json = nlohmann::ordered_json;

namespace
{

constexpr int ROWS_MIN = 64;
constexpr int ROWS_MAX = 2048;
constexpr int TOP = 5;
constexpr int GREEDY_TOKENS = 48;

struct options {
    bool kv_f32 = false;
    bool flash = true;
    bool single = false; // one token per batch, as a decoding loop would
};

[[noreturn]] void die(const std::string &what)
{
    std::fprintf(stderr, "make_goldens: %s\n", what.c_str());
    std::exit(1);
}

options options_parse(int argc, char **argv)
{
    options o;
    for (int i = 4; i < argc; i++) {
        const std::string a = argv[i];
        if (a == "kv=f32") {
            o.kv_f32 = true;
        } else if (a == "fa=off") {
            o.flash = false;
        } else if (a == "decode=single") {
            o.single = true;
        } else if (a != "kv=f16" && a != "fa=on" && a != "decode=batch") {
            die("unknown option " + a);
        }
    }
    return o;
}

// Five decimals: 1,000 times finer than the tolerance of the tests, and half the file.
double rounded(double x)
{
    return std::round(x * 1e5) / 1e5;
}

struct engine {
    llama_model *model = nullptr;
    llama_context *ctx = nullptr;
    const llama_vocab *vocab = nullptr;
    int n_vocab = 0;
    bool single = false;
};

engine engine_open(const char *path, const options &o)
{
    engine e;
    llama_model_params mp = llama_model_default_params();
    mp.n_gpu_layers = 0;
    e.model = llama_model_load_from_file(path, mp);
    if (e.model == nullptr) {
        die(std::string("cannot load ") + path);
    }
    llama_context_params cp = llama_context_default_params();
    cp.n_ctx = cp.n_batch = cp.n_ubatch = ROWS_MAX;
    cp.n_seq_max = 1;
    cp.n_threads = cp.n_threads_batch = 2;
    cp.type_k = cp.type_v = o.kv_f32 ? GGML_TYPE_F32 : GGML_TYPE_F16;
    cp.flash_attn_type = o.flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    e.ctx = llama_init_from_model(e.model, cp);
    if (e.ctx == nullptr) {
        die("cannot make a context");
    }
    e.vocab = llama_model_get_vocab(e.model);
    e.n_vocab = llama_vocab_n_tokens(e.vocab);
    e.single = o.single;
    return e;
}

std::vector<llama_token> tokenize(const engine &e, const std::string &text, bool special)
{
    std::vector<llama_token> ids(text.size() + 8);
    const int n = llama_tokenize(e.vocab, text.data(), (int32_t)text.size(), ids.data(),
                                 (int32_t)ids.size(), /*add_special=*/special, special);
    if (n < 0) {
        die("tokenizer wants more room than one token per byte");
    }
    ids.resize((size_t)n);
    return ids;
}

std::string detokenize(const engine &e, const std::vector<llama_token> &ids)
{
    std::string text;
    for (const llama_token id : ids) {
        char piece[256];
        const int n = llama_token_to_piece(e.vocab, id, piece, sizeof piece, 0, true);
        text.append(piece, (size_t)std::max(n, 0));
    }
    return text;
}

// Runs rows [from, to) in one batch; those at `first` and after give logits.
void decode_rows(engine &e, const std::vector<llama_token> &rows, int from, int to, int first)
{
    llama_batch batch = llama_batch_init(to - from, 0, 1);
    batch.n_tokens = to - from;
    for (int i = from; i < to; i++) {
        const int k = i - from;
        batch.token[k] = rows[(size_t)i];
        batch.pos[k] = i;
        batch.n_seq_id[k] = 1;
        batch.seq_id[k][0] = 0;
        batch.logits[k] = i >= first;
    }
    if (llama_decode(e.ctx, batch) != 0) {
        die("llama_decode failed");
    }
    llama_batch_free(batch);
}

using visit_fn = std::function<void(int, const std::vector<double> &)>;

std::vector<double> logprobs(const engine &e, const float *logits)
{
    const float top = *std::max_element(logits, logits + e.n_vocab);
    double sum = 0;
    for (int v = 0; v < e.n_vocab; v++) {
        sum += std::exp((double)logits[v] - top);
    }
    std::vector<double> lp((size_t)e.n_vocab);
    for (int v = 0; v < e.n_vocab; v++) {
        lp[(size_t)v] = (double)logits[v] - top - std::log(sum);
    }
    return lp;
}

// Calls visit(i, log-probabilities after ids[0..i]) for every i >= first, from an empty cache.
void each_position(engine &e, const std::vector<llama_token> &ids, int first, const visit_fn &visit)
{
    const int n = (int)ids.size();
    llama_memory_clear(llama_get_memory(e.ctx), true);
    if (e.single) {
        for (int i = 0; i < n; i++) {
            decode_rows(e, ids, i, i + 1, i);
            if (i >= first) {
                visit(i, logprobs(e, llama_get_logits_ith(e.ctx, 0)));
            }
        }
        return;
    }
    std::vector<llama_token> rows = ids;
    rows.resize((size_t)std::max(n, ROWS_MIN), llama_vocab_eos(e.vocab));
    if (rows.size() > ROWS_MAX) {
        die("prompt longer than ROWS_MAX");
    }
    decode_rows(e, rows, 0, (int)rows.size(), first);
    for (int i = first; i < n; i++) {
        visit(i, logprobs(e, llama_get_logits_ith(e.ctx, i)));
    }
}

// Best first; equal values in order of token id, so that the file does not depend on the sort.
std::vector<int> best(const std::vector<double> &lp, int n)
{
    std::vector<int> order(lp.size());
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + n, order.end(), [&](int a, int b) {
        return lp[(size_t)a] != lp[(size_t)b] ? lp[(size_t)a] > lp[(size_t)b] : a < b;
    });
    order.resize((size_t)n);
    return order;
}

void score_prompt(engine &e, json &prompt)
{
    const std::vector<llama_token> ids = prompt.contains("ids")
                                             ? prompt["ids"].get<std::vector<llama_token>>()
                                             : tokenize(e, prompt["text"], true);
    prompt["ids"] = ids;
    prompt["top"] = json::array();
    prompt["next"] = json::array();
    double nll = 0;
    each_position(e, ids, 0, [&](int i, const std::vector<double> &lp) {
        json top = json::array();
        for (const int id : best(lp, TOP)) {
            top.push_back({id, rounded(lp[(size_t)id])});
        }
        prompt["top"].push_back(top);
        if (i + 1 < (int)ids.size()) {
            const double next = lp[(size_t)ids[(size_t)i + 1]];
            prompt["next"].push_back(rounded(next));
            nll -= next;
        }
    });
    const double mean = nll / std::max<double>(1, (double)ids.size() - 1);
    prompt["mean_nll"] = rounded(mean);
    std::fprintf(stderr, "%4zu tokens, %.3f nats: %.40s\n", ids.size(), mean,
                 prompt.value("name", "").c_str());
}

// Each token from a fresh pass over everything before it: slow, and free of the f16 sums above.
void continue_greedily(engine &e, json &chat)
{
    std::vector<llama_token> ids = tokenize(e, chat["text"], true);
    std::vector<llama_token> out;
    chat["ids"] = ids;
    chat["logprob"] = json::array();
    chat["margin"] = json::array();
    double least = INFINITY;
    while ((int)out.size() < GREEDY_TOKENS &&
           (out.empty() || !llama_vocab_is_eog(e.vocab, out.back()))) {
        each_position(e, ids, (int)ids.size() - 1, [&](int, const std::vector<double> &lp) {
            const std::vector<int> two = best(lp, 2);
            const double margin = lp[(size_t)two[0]] - lp[(size_t)two[1]];
            out.push_back(two[0]);
            chat["logprob"].push_back(rounded(lp[(size_t)two[0]]));
            chat["margin"].push_back(rounded(margin));
            least = std::min(least, margin);
        });
        ids.push_back(out.back());
    }
    chat["out"] = out;
    chat["out_text"] = detokenize(e, out);
    std::fprintf(stderr, "greedy, %zu tokens, least margin %.3f: %s\n", out.size(), least,
                 chat["out_text"].get<std::string>().c_str());
}

} // namespace

int main(int argc, char **argv)
{
    if (argc < 4) {
        die("usage: make_goldens MODEL.gguf WORK.json OUT.json [kv=f16|f32] [fa=on|off] "
            "[decode=batch|single]");
    }
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();
    engine e = engine_open(argv[1], options_parse(argc, argv));
    json work = json::parse(std::ifstream(argv[2]));
    for (json &item : work["tokenize"]) {
        item["ids"] = tokenize(e, item["text"], item["parse_special"]);
    }
    for (json &prompt : work["prompts"]) {
        score_prompt(e, prompt);
    }
    for (json &chat : work["greedy"]) {
        continue_greedily(e, chat);
    }
    work["system_info"] = llama_print_system_info();
    std::ofstream(argv[3]) << work.dump() << "\n";
    llama_free(e.ctx);
    llama_model_free(e.model);
    return 0;
}
