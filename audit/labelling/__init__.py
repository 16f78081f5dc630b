"""Labels of people: the sample they label, the file their labels are kept in, and how well a grader agrees with them.

Here belong drawing the sample, reading and writing files of labels, and the agreement report. The page on which people label belongs
in `reports`, and the schema of labels in `graders.labelled`.
"""
