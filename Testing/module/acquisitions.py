"""Volume nodes as Slicer's DICOM plugin leaves them: matrix, acquisition transform, and the instances' attribute."""

from __future__ import annotations

import heads
import numpy as np
import vtk


def acquisition_transform(slicer, node, corners):
    """What Slicer's DICOM plugin puts above a tilted or uneven stack: a grid transform known at slice corners.

    corners: (K, 2, 2, 3) true RAS of each slice at (row 0 or rows, column 0 or columns): as in Slicer one pixel past
    the last center.
    """
    depth, rows, columns = slicer.util.arrayFromVolume(node).shape
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    ijk_to_ras = slicer.util.arrayFromVTKMatrix(matrix)
    image = vtk.vtkImageData()
    image.SetDimensions(2, 2, depth)
    spacing = node.GetSpacing()
    image.SetSpacing(spacing[0] * columns, spacing[1] * rows, spacing[2])
    image.SetOrigin(*node.GetOrigin())
    image.AllocateScalars(vtk.VTK_DOUBLE, 3)
    grid = slicer.vtkOrientedGridTransform()
    directions = vtk.vtkMatrix4x4()
    node.GetIJKToRASDirectionMatrix(directions)
    grid.SetGridDirectionMatrix(directions)
    grid.SetDisplacementGridData(image)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "Tilted acquisition transform")
    transform.SetAndObserveTransformToParent(grid)
    node.SetAndObserveTransformNodeID(transform.GetID())
    places = np.array(
        [[[(ijk_to_ras @ [i, j, k, 1])[:3] for i in (0, columns)] for j in (0, rows)] for k in range(depth)]
    )
    slicer.util.arrayFromGridTransform(transform)[:] = corners - places
    slicer.util.arrayFromGridTransformModified(transform)
    return transform


def add_stack(slicer, array, origins, column, row, name):
    """A node as Slicer's DICOM plugin leaves a series: upright regular matrix, grid transform above where needed.

    array: (K, J, I); origins (K, 3), column and row step (3,): the true places, RAS mm.
    """
    depth, rows, columns = array.shape
    normal = np.cross(column, row) / np.linalg.norm(np.cross(column, row))
    step = np.linalg.norm(origins[-1] - origins[0]) / (depth - 1)
    upright = np.eye(4)
    upright[:3, 0], upright[:3, 1], upright[:3, 2], upright[:3, 3] = column, row, step * normal, origins[0]
    node = slicer.util.addVolumeFromArray(array, ijkToRAS=upright, name=name)
    corners = np.array([[[o + i * column + j * row for i in (0, columns)] for j in (0, rows)] for o in origins])
    acquisition_transform(slicer, node, corners)
    return node


def add_head_stack(slicer, origins, tilt_degrees=0.0, name="Tilted"):
    """The small head on slices at these origins: (node, column step, row step)."""
    cosine, sine = np.cos(np.radians(tilt_degrees)), np.sin(np.radians(tilt_degrees))
    column, row = np.array([-3.2, 0, 0]), 3.2 * np.array([0, -cosine, sine])
    return add_stack(slicer, heads.head_array(), origins, column, row, name), column, row


def add_tilted(slicer, tilt_degrees=20.0):
    """A series of a tilted gantry, 5 mm of table a slice."""
    origins = np.array([90.0, 110.0, -60.0]) + np.outer(np.arange(heads.SHAPE[0]), [0, 0, 5.0])
    node, column, row = add_head_stack(slicer, origins, tilt_degrees)
    return node, origins, column, row


def add_series(slicer, folder, name="GE"):
    """A node of a DICOM folder: (node, the library's own reading of it, file of each instance by its UID).

    Slicer's plugin writes the instances' UIDs in the order of the files it loaded.
    """
    import pydicom

    from ICHAnalysisLib.ct.readers import inspect_scan
    from ICHAnalysisPanel.volume_nodes import UIDS_ATTRIBUTE

    read = inspect_scan(folder)
    node = add_stack(
        slicer, read.hu.astype(np.int16), read.slice_origins_ras, read.column_step_ras, read.row_step_ras, name
    )
    uids = [instance.sop_instance_uid for instance in read.instances]
    node.SetAttribute(UIDS_ATTRIBUTE, " ".join(uids))
    files = {}
    for path in sorted(folder.rglob("*.dcm")):
        files[str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)] = str(path)
    return node, read, files
