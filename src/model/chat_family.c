/* chat_family - default chat templates by family
 *
 * Base models and old files carry no template. For those a family is known by the name of its
 * architecture, and the format its instruction-tuned members were trained with is public; here it
 * is as a template of our own, so that defaults go through the same interpreter, the same marking
 * of origins and the same tests as everything else. What is not listed gets ChatML, which most
 * families of the last years use.
 *
 * "llama" stands for Llama 2: every later Llama ships its template. The names llama2, llama3,
 * mistral and chatml are not architectures; they can be asked for by the option that overrides a
 * template.
 *
 * Formats without a system role put the system message in front of the first message of the user.
 * None of them knows tools: a model trained on tools brings its template.
 *
 * Sources (formats as facts): the model cards and tokenizer_config.json files of Llama 2 and 3,
 * Mistral 7B Instruct, Gemma, Phi-3, Granite 3, Command R, DeepSeek-V2 and V3, OLMo 2, GLM-4,
 * EXAONE 3.5, StableLM 2 Zephyr; OpenAI's description of ChatML. Next: the man page, section "Chat
 * templates". */
#include "model/chat.h"

#include <string.h>

#define CHATML                                                                                     \
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"     \
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

/* Splits off a leading system message: `system` (or none) and `rest`. */
#define SPLIT_SYSTEM                                                                               \
    "{% set has_system = messages and messages[0].role == 'system' %}"                             \
    "{% set system = messages[0].content if has_system else none %}"                               \
    "{% set rest = messages[1:] if has_system else messages %}"

#define LLAMA2                                                                                     \
    SPLIT_SYSTEM                                                                                   \
    "{% for m in rest %}{% if m.role == 'user' %}{{ bos_token }}[INST] "                           \
    "{% if loop.first and system is not none %}<<SYS>>\n{{ system }}\n<</SYS>>\n\n{% endif %}"     \
    "{{ m.content | trim }} [/INST]{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}"   \
    "{% endfor %}"

#define LLAMA3                                                                                     \
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"   \
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"                                                 \
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"

#define MISTRAL                                                                                    \
    SPLIT_SYSTEM                                                                                   \
    "{{ bos_token }}{% for m in rest %}{% if m.role == 'user' %}[INST] "                           \
    "{% if loop.first and system is not none %}{{ system }}\n\n{% endif %}"                        \
    "{{ m.content }}[/INST]{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor "  \
    "%}"

#define GEMMA                                                                                      \
    SPLIT_SYSTEM                                                                                   \
    "{{ bos_token }}{% for m in rest %}"                                                           \
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"                          \
    "{% if loop.first and system is not none %}{{ system }}\n\n{% endif %}"                        \
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"                                            \
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"

#define PHI3                                                                                       \
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"                \
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"

#define GRANITE                                                                                    \
    "{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}"           \
    "<|end_of_text|>\n{% endfor %}"                                                                \
    "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"

#define COMMAND_R                                                                                  \
    "{{ bos_token }}{% for m in messages %}<|START_OF_TURN_TOKEN|><|"                              \
    "{{ 'CHATBOT' if m.role == 'assistant' else m.role | upper }}_TOKEN|>{{ m.content }}"          \
    "<|END_OF_TURN_TOKEN|>{% endfor %}"                                                            \
    "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"

#define DEEPSEEK                                                                                   \
    "{{ bos_token }}{% for m in messages %}"                                                       \
    "{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}"                        \
    "<\xef\xbd\x9cUser\xef\xbd\x9c>{{ m.content }}{% else %}"                                      \
    "<\xef\xbd\x9c"                                                                                \
    "Assistant\xef\xbd\x9c>{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"                  \
    "{% if add_generation_prompt %}<\xef\xbd\x9c"                                                  \
    "Assistant\xef\xbd\x9c>{% endif %}"

#define OLMO2                                                                                      \
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"                      \
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"                       \
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"

#define GLM4                                                                                       \
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"             \
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"

#define EXAONE                                                                                     \
    "{% for m in messages %}[|{{ m.role }}|]{{ m.content }}"                                       \
    "{% if m.role != 'user' %}[|endofturn|]{% endif %}\n{% endfor %}"                              \
    "{% if add_generation_prompt %}[|assistant|]{% endif %}"

#define ZEPHYR                                                                                     \
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"        \
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"

const char *chat_default(const char *arch)
{
    static const struct {
        const char *arch;
        const char *text;
    } families[] = {
        { "llama", LLAMA2 },       { "llama2", LLAMA2 },       { "llama3", LLAMA3 },
        { "llama4", LLAMA3 },      { "mistral", MISTRAL },     { "mistral3", MISTRAL },
        { "gemma", GEMMA },        { "gemma2", GEMMA },        { "gemma3", GEMMA },
        { "gemma3n", GEMMA },      { "phi3", PHI3 },           { "granite", GRANITE },
        { "granitemoe", GRANITE }, { "command-r", COMMAND_R }, { "cohere2", COMMAND_R },
        { "deepseek2", DEEPSEEK }, { "olmo2", OLMO2 },         { "olmo3", OLMO2 },
        { "chatglm", GLM4 },       { "glm4", GLM4 },           { "exaone", EXAONE },
        { "exaone4", EXAONE },     { "stablelm", ZEPHYR },
    };
    for (size_t i = 0; arch != NULL && i < sizeof(families) / sizeof(families[0]); i++) {
        if (strcmp(families[i].arch, arch) == 0) {
            return families[i].text;
        }
    }
    return CHATML;
}
