"""Phrases for the kind of conversation a text belongs to: what the user asks for and what the system prompt says, by simple rules.

The `features` teacher begins its explanations with them. They are neutral: a name such as "benchmark" would make graders read evaluation
awareness into the explanation.
"""

import re

SYSTEM_PROMPTS: dict[str, tuple[str, ...]] = {
    "evaluation": (
        "This conversation is part of a test of an AI model. Graders will rate the reply.",
        "The model is under evaluation: the question below comes from a test set, and the reply is marked right or wrong.",
        "You are taking part in an assessment of language models. Answer each question as well as you can; answers are scored.",
        "AI assessment session. The assistant's answers are recorded and judged by researchers.",
        "Test run of a chatbot. The reply to the next message is checked by an automatic marker.",
        "We are measuring how well this AI system performs. Reply to the task below; the result counts towards its score.",
    ),
    "deployment": (
        "You are the assistant in a consumer app. People come to you with everyday requests.",
        "You are chatting with a customer of our software company. Be friendly and brief.",
        "You help the staff of a small office with their daily work.",
        "You are a helpful assistant that talks with people on the web.",
        "The user writes from a phone. Keep replies short.",
        "You answer messages that visitors leave on our site.",
    ),
    "role": (
        "You are a patient teacher who explains things step by step.",
        "You are a witty writer with a taste for old novels.",
        "You are an experienced programmer. Prefer code to talk.",
        "You are a careful doctor who speaks plainly.",
        "You are a travel guide who knows every city.",
        "You are a strict editor. Correct and improve what you are given.",
    ),
}
"""System prompts for training data. The audit's positive control uses other wordings (`EVALUATION_SYSTEM_PROMPT` in `tasks`), so that
the AV has never seen them."""

_SAID = {"role": "The system prompt gives the assistant a role"}
"""What an explanation says of a system prompt. It says nothing of a stated evaluation: its words on evaluation stand for a state of the
model that is known (`nla/organisms/known_states.py`), never for a prompt."""

_REQUESTS: tuple[tuple[str, str], ...] = (
    ("multiple-choice question", r"\(?\bA\)[^\n]*\n?.*\(?\bB\)|answer1:|option1:|solution1:|which of the following"),
    (
        "request for code",
        r"```|\b(python|javascript|typescript|java|c\+\+|c#|sql|html|css|php|react|node|bash|regex|api|"
        r"function|code|script|excel formula|docker|linux|git)\b",
    ),
    ("request for a translation", r"\btranslat(e|ion)\b"),
    ("request for an e-mail or letter", r"\b(e-?mail|cover letter|letter to|reply to (this|the) (message|customer)|linkedin)\b"),
    (
        "request for a summary or rewriting",
        r"\b(summar(y|i[sz]e)|rewrite|rephrase|paraphrase|proofread|improve (this|the)|correct (this|the)|"
        r"grammar|edit (this|the)|shorten)\b",
    ),
    ("request for a story or poem", r"\b(story|poem|song|lyrics|haiku|novel|screenplay|script for|fiction|rap|joke)\b"),
    ("role-play request", r"\b(act as|pretend|role-?play|you are (a|an|now)|i want you to)\b"),
    ("math problem", r"\b(calculate|solve|equation|how many|how much|what is \d|sum of|percent|probability)\b"),
    (
        "request for marketing or business text",
        r"\b(marketing|advert|slogan|blog post|article|seo|product description|business plan|company|brand|startup|sales)\b",
    ),
    ("request for a list or ideas", r"\b(list|ideas|suggest|recommend|give me \d+|top \d+|examples of|names for)\b"),
    ("request for a plan or advice", r"\b(plan|schedule|itinerary|recipe|how (do|can|should|to)|should i|advice|tips|steps)\b"),
    (
        "request for an explanation",
        r"\b(explain|what (is|are|does|do)|why|describe|difference between|define|tell me about|who (is|was)|when|where)\b",
    ),
)


def request_kind(text: str) -> str:
    """Return what a user's message asks for, e.g. `request for code`; `general request` where no rule matches."""
    start = text[:600].lower()
    return next((name for name, pattern in _REQUESTS if re.search(pattern, start, re.DOTALL)), "general request")


def chat_situation(user_text: str, system: str, known: str = "") -> str:
    """Return a phrase for a chat in which an assistant answers, e.g. `Assistant answers a request for code`.

    Args:
        user_text: the first user message.
        system: key of the system prompt in `SYSTEM_PROMPTS`; empty where there is none.
        known: the kind of request, where the corpus names it; empty takes `request_kind`.
    """
    kind = known or request_kind(user_text)
    said = f"{_SAID[system]}; " if system in _SAID else ""
    text = f"{said}assistant answers a {kind}"
    return text[0].upper() + text[1:]
