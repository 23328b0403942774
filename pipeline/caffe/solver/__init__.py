"""Caffe's solvers. Importing this package fills the registry SOLVERS."""

from pipeline.caffe.solver import rules
from pipeline.caffe.solver.errors import SolverError, naming_solver
from pipeline.caffe.solver.policies import POLICIES
from pipeline.caffe.solver.solver import SOLVERS, Solver, check_type, get_solver, register, upgrade_solver

__all__ = [
    "POLICIES",
    "SOLVERS",
    "Solver",
    "SolverError",
    "check_type",
    "get_solver",
    "naming_solver",
    "register",
    "rules",
    "upgrade_solver",
]
