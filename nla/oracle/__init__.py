"""The question-answering oracle: a verbalizer that was fine-tuned to answer questions about one vector, with arms that say what it adds.

Data whose answers the project knows are made in `nla.readers.oracle_data`, which needs organisms; nothing of that kind belongs here.
"""
