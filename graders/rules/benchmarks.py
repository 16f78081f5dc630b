"""Names of ML benchmarks as patterns for folded text: unmistakable names, and common words that need a second word to be a name."""

# A tokenizer may cut a name ("Truthful", "QA"), and people write it with a hyphen, a space or nothing.
_JOIN = r"(?:-|\s|\"[,\s]{0,3}\"\s?-?)?"

_KNOWLEDGE = (
    "(?:c|m|mm)?mm_lu(?:_pro|_redux)?|mmmu|gp_qa(?:_diamond)?|humanity's last exam|agi_eval|c_eval|ceval|trivia_qa|natural questions"
    "|simple_qa|openbook_qa|open book qa|commonsense_qa|strategy_qa|hotpot_?qa|musique|2wiki\\w*|sci_q(?=\\b)|pop_qa|web_?questions"
    "|med_qa|medmc_qa|pubmed_qa|legal_?bench|science_qa|xquad|tydi_?qa|mgsm|belebele|virology capabilities test|cnn/daily "
    "?mail|xsum|sst-2|mrpc|qnli|wsc273|flores-?\\d+|mini_?f2f|putnam_?bench|niah|hendrycks|race-?[mh]\\b|boolq|pi_qa|soci?al_?i_?qa|sciq|qasper"
)
_REASONING = (
    "gsm_?8_?k|gsm_(?:hard|plus|symbolic|1k)|math_?500|frontier_?math|olympiad_?bench|omni_math|math_?(?:vista|bench)|big_bench(?:_hard)?"
    "|bbh|bbeh|hella_?swag|truthful_?qa|arc_(?:challenge|easy|agi|c)|ai2_(?:reasoning challenge|arc)|wino_?grande|winograd|winobias"
    "|winogender|lambada|logiqa|reclor|prontoqa|clutrr|zebra_?logic|musr|copa benchmark|xcopa|anli|snli|mnli|xnli|super_?glue|aime|hle"
)
_AGENTS = (
    "swe_?bench(?:_verified|_lite|_pro|_multimodal)?|swe_?lancer|human_?eval(?:\\+|_x|_plus)?|mbpp\\+?|live_?code_?bench|live_?bench"
    "|big_?code_?bench|ds_1000|multipl-e|eval_?plus|crux_?eval|repo_?bench|sci_?code|kernel_?bench|mle_bench|re_bench|paper_?bench"
    "|core_bench|terminal_bench|cy_?bench|agent_?(?:bench|dojo|harm)|web_?arena|visual_?web_?arena|os_?world|mind2web|alf_?world"
    "|web_?shop(?=[ -](?:bench|task|env))|tau_?2?_?bench|τ2?-?bench|bfcl|berkeley function[- "
    "]call\\w+|tool_?bench|browse_?comp|vending_bench"
)
_CONDUCT = (
    "if_?eval|if_?bench|follow_?bench|mt_bench|alpaca_?eval|arena_hard|wild_?bench|chatbot arena|strong_?reject|xs_?test|harm_?bench"
    "|adv_?bench|jailbreak_?bench|do_not_answer|sorry_bench|or_bench|toxi_?gen|real_?toxicity_?prompts|crows_pairs|stereo_?set"
    "|sycophancy_eval|halu_?eval|fact_?score|long_?bench|l-eval|infinite_?bench|babilong|zero_?scrolls|no_?lima|wmdp|eq_bench"
    "|chatbot arena|lm_?arena|situational awareness dataset|model-written eval\\w*|machiavelli "
    "benchmark|air_bench|simple_safety_?tests|bbq(?= (?:bias|item|question|benchmark|style|prompt))"
)
_KINDS_OF_NAME = (
    # Any other name built the usual way; "workbench", "medieval" and "retrieval" are words.
    "(?!workbench|frontbench|backbench)[a-z][a-z0-9]{1,18}[a-z0-9]-?bench"
    "|(?!medieval|retrieval|primeval|coeval|upheaval)(?!re?-?eval)[a-z]{3,18}-eval(?!-)"
    "|[a-z]{4,18}qa(?!\\w)"
    # Instance ids of SWE-bench, and the string by which BIG-bench asks to be left out of training data.
    "|[a-z0-9]+__[a-z0-9-]+-\\d{2,}|canary (?:string|guid)"
)

NAMES = "|".join((_KNOWLEDGE, _REASONING, _AGENTS, _CONDUCT)).replace("_?", "_").replace("_", _JOIN) + "|" + _KINDS_OF_NAME
"""Alternatives that each name a benchmark without further words."""

COMMON_WORDS = r"(?:math|arc|drop|race|glue|squad|copa|gaia|helm|bbq|bold|ruler|spider|bird|folio|apps|quality|moral|ethics|rte|wic|aqua)"
"""Benchmarks whose names are common words; they count only next to another word that says so."""
