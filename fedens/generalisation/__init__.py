"""What generalises from small training cells to a defect in a large crystal.

The setting of C. Ortner and Y. Wang, Multiscale Model. Simul. 21, 1053 (2023): a point defect in a
crystal, relaxed with a reference energy and with a model that was fitted in a domain of radius L
around the defect. Which observations the model must reproduce, and how large L must be, follows
from how fast the defect's strain decays, as r^-3.
"""
