"""Labels by people: the sample of explanations that they label, the file of their labels, and how well a grader agrees with them.

This package draws the sample, reads and writes files of labels, and makes the agreement report. The page on which people label belongs
in `reports`, and the schema of labels in `graders.labelled`.
"""
