"""Controls of the instrument itself: what verbalizer and grader say where there is nothing to find, and their record."""
