"""Caffe's solvers. Importing this package fills the registry SOLVERS."""

from pipeline.caffe.solver import sgd_solvers
from pipeline.caffe.solver.errors import SolverError, naming_solver
from pipeline.caffe.solver.lr_policies import POLICIES
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
    "sgd_solvers",
    "upgrade_solver",
]
